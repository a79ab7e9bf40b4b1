"""Our own layout: model.safetensors and config.json, which name the components and hold every tensor."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.noise import Noise
from maskedmodel.plugins import Registry
from maskedmodel.weights.export.written import Written, largest
from maskedmodel.weights.place import WEIGHTS
from maskedmodel.weights.runs import as_config, load_own


def write(model: MaskedAutoencoder, folder: Path, registry: Registry | None) -> Written:
    """The whole model, or the encoder alone where its decoder was never loaded."""
    tensors = {
        name: tensor.contiguous().clone()
        for name, tensor in model.state_dict().items()
        if model.decoder_loaded or not name.startswith("decoder.")
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(as_config(model), indent=1) + "\n")
    again = load_own(folder, registry)
    assert isinstance(again, MaskedAutoencoder)

    def difference(signal: Tensor) -> float:
        own, other = model.encode(signal), again.encode(signal)
        if not model.decoder_loaded:
            return largest(own, other)
        mask = model.scheduler.sample(model.tokens(signal), 1.0, Noise.random(signal.shape[0], torch.device("cpu")))
        return max(largest(own, other), largest(model(signal, mask).prediction, again(signal, mask).prediction))

    return Written(
        what="the whole model" if model.decoder_loaded else "the encoder",
        gives="a MaskedAutoencoder",
        load=f"maskedmodel.load({str(folder)!r})",
        difference=difference,
        libraries=("safetensors",),
    )
