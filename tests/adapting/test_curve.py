"""The label curve: every run in its place, the right means and differences, and nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskedmodel.adapting import curve
from maskedmodel.adapting.curve import LabelCurve, label_curve
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry
from maskedmodel.report.label_curve import write
from tests.adapting.conftest import ALONE


def drawn(config: FinetuneConfig, folder: Path, registry: Registry, *labels: int | str, **more: Any) -> LabelCurve:
    options = {"seeds": 2, "scratch": True, **more}
    found = label_curve(config, folder, registry, ALONE, labels=labels, **options, quiet=True)
    assert found is not None
    return found


def test_means_and_differences_are_those_of_the_runs(
    configured: Callable[..., FinetuneConfig], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured("train.steps=2")
    found = drawn(config, tmp_path, registry, "50%", 4)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [point.count for point in found.points] == [point["count"] for point in results["points"]] == [4, 20]
    for point in found.points:
        values = {}
        for arm in ("started", "from-scratch"):
            place = tmp_path / f"labels-{point.labels.replace('%', '-percent')}" / arm
            outcomes = [json.loads((place / f"seed-{seed}/outcome.json").read_text()) for seed in range(2)]
            assert {outcome["labels"] for outcome in outcomes} == {point.count}
            values[arm] = [outcome["judged"]["metrics"]["accuracy"]["value"] for outcome in outcomes]
        assert point.started.mean == pytest.approx(np.mean(values["started"]))
        assert point.scratch is not None
        assert point.scratch.mean == pytest.approx(np.mean(values["from-scratch"]))
        assert point.difference is not None
        assert point.difference.mean == pytest.approx(point.started.mean - point.scratch.mean)
        assert point.difference.verdict == "no verdict"  # two seeds give none
    said = str(found).splitlines()
    assert said[0].split() == [
        "labels",
        "accuracy,",
        "fine-tuned",
        "from",
        "scratch",
        "difference",
        "95",
        "%",
        "interval",
    ]
    for line, point in zip(said[1:3], found.points, strict=True):
        assert line.startswith(f"{point.count} ")
        assert f"{point.started.mean:.3f} (" in line
        assert line.endswith("no verdict")
    page = write(tmp_path).read_text("utf-8")
    assert "data:image/png" in page
    assert "no verdict" in page
    made: list[str] = []
    real = curve.adapt
    monkeypatch.setattr(curve, "adapt", lambda *a, **k: (made.append(str(a[1])), real(*a, **k))[1])
    monkeypatch.setattr("maskedmodel.training.loop.backward", lambda *_: pytest.fail("a step was made"))
    assert drawn(config, tmp_path, registry, "50%", 4).points == found.points
    assert len(made) == 8


def test_the_fewer_lie_within_the_more(
    configured: Callable[..., FinetuneConfig], registry: Registry, tmp_path: Path
) -> None:
    """By the classes that each run counts, and by what it read."""
    drawn(configured("train.steps=1"), tmp_path, registry, 3, 5, seeds=1, scratch=False)
    kept = {n: (tmp_path / f"labels-{n}/started/seed-0/labels.json").read_text() for n in (3, 5)}
    counts = {n: json.loads(text)["counts"] for n, text in kept.items()}
    assert sum(counts[3]) == 3
    assert sum(counts[5]) == 5
    assert all(few <= more for few, more in zip(counts[3], counts[5], strict=True))


def test_a_number_twice_is_a_slip(
    configured: Callable[..., FinetuneConfig], registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        drawn(configured(), tmp_path, registry, 5, 5)
    with pytest.raises(ConfigError, match="no number of labels"):
        drawn(configured(), tmp_path, registry, "few")


@pytest.mark.parametrize(
    ("score", "said"), [("accuracy", "Accuracy on 5"), ("PCK@0.1", "PCK@0.1 on 5"), ("mIoU", "mIoU on 5")]
)
def test_a_score_is_spelled_as_it_is(score: str, said: str) -> None:
    assert curve.protocol(LabelCurve(Path(), score, True, 5, 2, 3, ())).startswith(said)
