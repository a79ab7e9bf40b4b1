import subprocess
import sys
from collections.abc import Callable

import maskedmodel_signals
import numpy as np
import torch
from maskedmodel_signals.beats import KINDS
from maskedmodel_signals.edf import Edf
from maskedmodel_signals.hearts import Hearts
from maskedmodel_signals.montage import LeadSettings
from maskedmodel_signals.tokenizer import SignalsTokenizer
from maskedmodel_signals.wfdb import Wfdb

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        SignalsTokenizer(leads=("I", "V2", "V5"), length=40, patch=10),
        SignalsTokenizer(leads="10-20", length=24, patch=8, normalise="lead", floor=0),
        SignalsTokenizer(leads=("A1", "Cz"), places={"A1": (-0.9, 0, -0.3)}, length=30, patch=6, normalise="none"),
        Hearts(train_samples=40, val_samples=20, length=100, fewest_leads=3),
        Edf,
        Wfdb,
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_what_the_plugin_provides() -> None:
    assert [kind.component_name() for kind in maskedmodel_signals.maskedmodel_tokenizers()] == ["signals"]
    names = [kind.component_name() for kind in maskedmodel_signals.maskedmodel_data_sources()]
    assert names == ["leads", "edf", "wfdb"]


def test_listing_it_loads_no_reader() -> None:
    code = (
        "import sys, maskedmodel_signals as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources()\n"
        "print(*sorted({'edfio', 'wfdb', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_heartbeats_keep_to_the_laws_of_the_limb_leads() -> None:
    """Einthoven: II = I + III. Goldberger: aVR + aVL + aVF = 0."""
    dataset = Hearts(noise=0, train_samples=12, val_samples=6).open("train")
    for index in range(12):
        signal = dict(zip(LeadSettings(name="any").names, dataset[index]["signal"].double(), strict=True))
        beats = {name: lead - _slow(lead) for name, lead in signal.items()}  # each drifts by itself
        scale = float(beats["II"].abs().max())
        assert float((beats["II"] - beats["I"] - beats["III"]).abs().max()) < 0.05 * scale
        assert float((beats["aVR"] + beats["aVL"] + beats["aVF"]).abs().max()) < 0.05 * scale


def _slow(lead: torch.Tensor) -> torch.Tensor:
    """The drift of at most 0.5 Hz, by least squares on sines of a grid of frequencies."""
    time = torch.arange(len(lead), dtype=torch.float64) / 100
    turns = 2 * torch.pi * torch.linspace(0.1, 0.5, 9, dtype=torch.float64)[:, None] * time
    basis = torch.cat([turns.sin(), turns.cos(), torch.ones(1, len(lead), dtype=torch.float64)]).T
    return basis @ torch.linalg.lstsq(basis, lead[:, None], driver="gelsd").solution[:, 0]


def test_every_kind_is_as_often_and_no_signal_occurs_twice() -> None:
    source = Hearts(train_samples=60, val_samples=12, length=120)
    assert source.class_names() == list(KINDS)
    train, val = source.open("train"), source.open("val")
    assert np.bincount([train[index]["label"] for index in range(60)]).tolist() == [10] * 6
    every = torch.stack([data[index]["signal"] for data in (train, val) for index in range(len(data))])
    assert len(torch.unique(every.flatten(1), dim=0)) == 72


def test_some_leads_are_absent_where_that_is_asked_for() -> None:
    dataset = Hearts(fewest_leads=2, train_samples=60, val_samples=6, length=100).open("train")
    counts = [int((~dataset[index]["signal"].isnan()).all(1).sum()) for index in range(60)]
    assert min(counts) >= 2
    assert len(set(counts)) > 6
