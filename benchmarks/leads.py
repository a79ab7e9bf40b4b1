"""What a model of `signals-quickstart` makes of leads that it was trained on, and of leads that it never met.

    python benchmarks/leads.py runs/signals-quickstart

Of 300 validation signals, the masked loss with each lead described by where it is, and with the same descriptions given
to the wrong leads (always predicting the mean: 1.0). Were the descriptions of no use, both would be alike.
"""

from __future__ import annotations

import argparse

import torch
from maskedmodel_signals.hearts import Hearts
from maskedmodel_signals.tokenizer import SignalsTokenizer

import maskedmodel
from maskedmodel import MaskedAutoencoder, Noise

SIGNALS = 300
SETS = {
    "the 8 that it was trained on": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
    "all 12, of which 4 are new": ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
    "the 4 new ones alone": ("III", "aVR", "aVL", "aVF"),
}


@torch.inference_mode()
def masked_loss(model: MaskedAutoencoder, leads: tuple[str, ...], wrong: bool) -> float:
    tokenizer = SignalsTokenizer(leads=leads)
    tokenizer.load_state_dict(model.tokenizer.state_dict())
    if wrong:
        tokenizer.places = tokenizer.places.roll(len(leads) // 2, 0)
    data = Hearts(leads=leads).open("val")
    signal = tokenizer.prepare(torch.stack([data[index]["signal"] for index in range(SIGNALS)]))
    tokens = tokenizer.tokenize(signal)
    return float(model(tokens, model.scheduler.sample(tokens, 1.0, Noise.of(range(SIGNALS)))).loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of the run")
    model = maskedmodel.load(parser.parse_args().run)
    assert isinstance(model, MaskedAutoencoder)
    print("| leads | masked loss | with wrong descriptions |\n|---|---|---|")
    for name, leads in SETS.items():
        right, wrong = (masked_loss(model, leads, turned) for turned in (False, True))
        print(f"| {name} | {right:.3f} | {wrong:.3f} |")


if __name__ == "__main__":
    main()
