import sys
from typing import Any

import maskedmodel_microscopy.stains as module
import pytest
import torch
from maskedmodel_microscopy.stains import Stains
from pydantic import ValidationError

from maskedmodel.errors import DependencyError


def test_crops_are_three_stains_of_the_size_asked_for() -> None:
    train = Stains(size=48, train_samples=30, val_samples=10).open("train")
    signals = torch.stack([train[index]["signal"] for index in range(len(train))])
    assert signals.shape == (30, 3, 48, 48)
    assert signals.dtype == torch.float32
    assert (signals.flatten(2).std(2) > 1e-3).float().mean() > 0.9  # every stain varies, the third too


def test_splits_lie_in_other_fields() -> None:
    parts = {split: Stains().open(split) for split in ("train", "val")}
    assert [len(part) for part in parts.values()] == [2000, 400]
    fields = [set(part.groups) for part in parts.values()]
    assert [len(names) for names in fields] == [12, 4]
    assert not fields[0] & fields[1]
    for part in parts.values():
        corners = part.read.corners
        assert torch.equal(corners // 128, (corners + 63) // 128)  # no crop leaves its field


def test_labels_say_whether_there_is_more_brown() -> None:
    train = Stains().open("train")
    brown = [float(train[index]["signal"][1].mean()) for index in range(200)]
    labels = [train[index]["label"] for index in range(200)]
    most_without = max(value for value, label in zip(brown, labels, strict=True) if label == 0)
    least_with = min(value for value, label in zip(brown, labels, strict=True) if label == 1)
    assert most_without < least_with
    assert sum(train.labels) == 1000
    assert Stains().class_names() == ["less DAB", "more DAB"]


def test_the_stains_explain_the_colours() -> None:
    """Mixed again with the vectors of Ruifrok and Johnston, the stains give back the photograph."""
    from skimage.data import immunohistochemistry

    photograph = torch.from_numpy(immunohistochemistry()).double()
    vectors = torch.tensor([module._HAEMATOXYLIN, module._DAB], dtype=torch.float64)
    vectors = torch.cat([vectors, torch.linalg.cross(vectors[:1], vectors[1:])])
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    density = module._separated().double().permute(1, 2, 0) @ vectors
    torch.testing.assert_close(256 * 10**-density - 1, photograph, atol=1e-3, rtol=0)


def test_more_crops_move_none() -> None:
    few, many = Stains(train_samples=5).open("train"), Stains(train_samples=50).open("train")
    assert torch.equal(few[4]["signal"], many[4]["signal"])


def test_without_scikit_image(monkeypatch: Any) -> None:
    module._separated.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(DependencyError, match="uv sync --extra microscopy"):
        Stains().open("train")


@pytest.mark.parametrize("values", [{"size": 4}, {"size": 200}, {"train_samples": 0}])
def test_settings_that_cannot_work_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Stains(**values)
