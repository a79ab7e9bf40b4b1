from itertools import pairwise

import numpy as np
import pytest
import torch
from maskedmodel_signals.montage import MONTAGES, LeadSettings, known
from maskedmodel_signals.places import lead_places

from maskedmodel.errors import ConfigError

PLACES = {name: np.array(place) for name, place in lead_places().items()}
HEAD = [name for name in PLACES if name not in MONTAGES["12-lead"]]


class Leads(LeadSettings):
    name: str = "any"


def test_electrodes_lie_on_a_sphere_left_and_right_alike() -> None:
    assert len(HEAD) == 85
    for name in HEAD:
        assert np.linalg.norm(PLACES[name]) == pytest.approx(1)
        number = int("".join(filter(str.isdigit, name)) or 0)
        if number:
            row = name.rstrip("0123456789")
            other = PLACES[f"{row}{number + 1 if number % 2 else number - 1}"]
            assert other == pytest.approx(PLACES[name] * [-1, 1, 1])
            assert PLACES[name][0] < 0 if number % 2 else PLACES[name][0] > 0
        else:
            assert PLACES[name][0] == pytest.approx(0)
    assert len({tuple(np.round(PLACES[name], 6)) for name in HEAD}) == len(HEAD)


def test_shares_of_the_10_20_system() -> None:
    """Along the midline 10, 20, 20, 20, 20 and 10 %, from ear to ear the same, and the ring in tenths (Jasper 1958)."""

    def between(one: str, other: str) -> float:
        return float(np.degrees(np.arccos(np.clip(PLACES[one] @ PLACES[other], -1, 1))))

    midline = ["Nz", "Fpz", "Fz", "Cz", "Pz", "Oz", "Iz"]
    assert [between(a, b) for a, b in pairwise(midline)] == pytest.approx([18, 36, 36, 36, 36, 18])
    coronal = ["T7", "C3", "Cz", "C4", "T8"]
    assert [between(a, b) for a, b in pairwise(coronal)] == pytest.approx([36] * 4)
    ring = ["Fpz", "Fp2", "AF8", "F8", "FT8", "T8", "TP8", "P8", "PO8", "O2", "Oz"]
    steps = [between(a, b) for a, b in pairwise(ring)]
    assert steps == pytest.approx([steps[0]] * 10)
    # F3 is as far from Fz as from F7, and in the plane of the row.
    assert between("F3", "Fz") == pytest.approx(between("F3", "F7"))
    plane = np.stack([PLACES[name] - PLACES["Fz"] for name in ("F7", "F8", "F3")])
    assert abs(np.linalg.det(plane)) < 1e-9


def test_limb_leads_follow_from_two() -> None:
    for whole, parts in {"II": ("I", "III"), "aVF": ("II", "III")}.items():
        total = sum(PLACES[name] for name in parts)
        assert PLACES[whole] == pytest.approx(total if whole == "II" else total / 2)
    assert PLACES["aVR"] + PLACES["aVL"] + PLACES["aVF"] == pytest.approx([0, 0, 0])
    # Of the frame: lead I looks to the left, aVF to the feet, V2 to the front.
    assert np.argmin(PLACES["I"]) == 0
    assert np.argmin(PLACES["aVF"]) == 2
    assert np.argmax(PLACES["V2"]) == 1


@pytest.mark.parametrize(
    ("label", "lead"),
    [
        ("EEG Fp1-REF", "Fp1"),
        ("EEG FP2-LE", "Fp2"),
        ("Fc5.", "FC5"),
        ("Cz..", "Cz"),
        ("T3", "T7"),
        ("EEG T6", "P8"),
        ("ECG II", "II"),
        ("avr", "aVR"),
        (" v3 ", "V3"),
        ("EEG Fpz-Cz", None),
        ("EOG horizontal", None),
        ("ECG", None),
        ("MLII", None),
        ("", None),
    ],
)
def test_what_files_call_leads(label: str, lead: str | None) -> None:
    assert known(label) == lead


def test_leads_of_ones_own() -> None:
    own = Leads(leads=("A1", "eeg cz"), places={"A1": (-0.9, 0.0, -0.3)})
    assert own.names == ("A1", "Cz")
    torch.testing.assert_close(own.described(), torch.tensor([[-0.9, 0, -0.3], [0, 0, 1.0]]))
    assert Leads(leads="V2").names == ("V2",)
    with pytest.raises(ConfigError, match="Nothing says where the leads A1, Fpz-Cz are") as error:
        _ = Leads(leads=("A1", "Fpz-Cz", "Cz")).names
    assert "places={NAME" in str(error.value)
    with pytest.raises(ConfigError, match="once each"):
        _ = Leads(leads=("T3", "T7")).names
