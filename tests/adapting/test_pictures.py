"""What the report of a fine-tuned run shows beside numbers: the most wrong samples, charts, progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskedmodel
from maskedmodel.adapting import places
from maskedmodel.adapting.places import draw_most_wrong
from maskedmodel.adapting.run import Adapted
from maskedmodel.evaluation import canvas
from maskedmodel.evaluation.canvas import Sheet
from maskedmodel.plugins import Registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.data import Reading
from maskedmodel.training.supervised import predicted
from maskedmodel.training.tracking import Display
from maskedmodel.weights.finetuned import load_finetuned
from tests.adapting.conftest import Told, ToldSettings

Go = Callable[..., Adapted]


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    """Every sheet that is drawn."""
    drawn: list[Sheet] = []
    real = Sheet.draw

    def noted(sheet: Sheet) -> Any:
        drawn.append(sheet)
        return real(sheet)

    monkeypatch.setattr(canvas.Sheet, "draw", noted)
    return drawn


def test_the_most_wrong_are_drawn_worst_first_with_what_is_true_and_said(
    run: Go, tmp_path: Path, registry: Registry, sheets: list[Sheet]
) -> None:
    run(tmp_path, "train.steps=1", "optim.lr=1e-6")  # as good as chance
    assert (tmp_path / "pictures" / "most_wrong.png").is_file()
    (sheet,) = sheets
    model, _ = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    data = Told(ToldSettings()).open("val")
    found = predicted(model, data, Reading(batch=5))
    shares = found.prediction.softmax(1)
    truth = ["sine" if int(name.split("-")[1]) % 2 == 0 else "square" for name in map(str, found.ids)]
    wrong = []
    for place, (name, share) in enumerate(zip(truth, shares.tolist(), strict=True)):
        said = ("sine", "square")[int(share[1] > share[0])]
        if said != name:
            wrong.append(
                (1 - share[("sine", "square").index(name)], place, f"is {name}, said {said} ({max(share):.0%})")
            )
    wrong.sort(key=lambda one: -one[0])
    assert sheet.captions == [(str(found.ids[place]), words) for _, place, words in wrong]
    shown = model.tokenizer.picture(torch.stack([data[place]["signal"] for _, place, _ in wrong]))
    for row, expected in zip(sheet.rows, shown, strict=True):
        torch.testing.assert_close(row[0].picture, expected)


def test_samples_that_cannot_be_read_shift_none(
    run: Go, tmp_path: Path, registry: Registry, sheets: list[Sheet]
) -> None:
    run(tmp_path, "train.steps=1", "optim.lr=1e-6")
    model, _ = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    whole = Told(ToldSettings()).open("val")
    some = Told(ToldSettings(broken_val=(0, 3))).open("val")
    reading = Reading(batch=5, on_bad_sample="skip")
    found = predicted(model, some, reading)
    assert len(found.ids) == 10
    sheets.clear()
    assert draw_most_wrong(model, some, found, reading, tmp_path) is not None
    (sheet,) = sheets
    for caption, row in zip(sheet.captions or (), sheet.rows, strict=True):
        signal = whole[int(caption[0].split("-")[1])]["signal"]
        torch.testing.assert_close(row[0].picture, model.tokenizer.picture(signal[None])[0])


def test_an_earlier_picture_goes_where_nothing_is_wrong(run: Go, tmp_path: Path, registry: Registry) -> None:
    run(tmp_path, "train.steps=30")
    model, _ = load_finetuned(tmp_path, checkpoints.newest(tmp_path), registry)
    data = Told(ToldSettings()).open("val")
    (tmp_path / places.MOST_WRONG).write_bytes(b"old")
    assert draw_most_wrong(model, data, predicted(model, data, Reading(batch=5)), Reading(batch=5), tmp_path) is None
    assert not (tmp_path / places.MOST_WRONG).exists()


@pytest.fixture
def shades(tmp_path: Path) -> dict[str, Any]:
    """Pictures of a level of grey, with a bar, a dot, both or neither."""
    folder = tmp_path / "shades"
    folder.mkdir()
    draw, rows = np.random.default_rng(0), ["file_name,level,tags"]
    for number in range(40):
        level, tags = float(draw.uniform()), [tag for tag in ("bar", "dot") if draw.integers(2)]
        pixels = (draw.integers(0, 60, (12, 12)) + 150 * level).astype(np.uint8)
        if "bar" in tags:
            pixels[2:4] = 255
        if "dot" in tags:
            pixels[7:10, 5:8] = 0
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{level:.3f},{'|'.join(tags) or 'plain'}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return {
        "data": {"name": "image_folder", "path": str(folder), "mode": "grey", "size": 12, "val_share": 0.4},
        "tokenizer": {"name": "image", "size": 12, "patch": 6, "channels": 1, "crop": None},
        "model": {"encoder": {"dim": 16, "depth": 1, "heads": 2}},
        "train": {"steps": 2, "batch": 8, "precision": "fp32", "device": "cpu"},
    }


@pytest.mark.parametrize(
    ("task", "label", "caption", "marks"),
    [
        ("regress", "level", "Predicted against true", ("<circle", "<polyline")),
        ("tag", "tags", "Average precision by tag", ("<rect",)),
    ],
)
def test_charts_stand_in_the_report_and_are_kept(
    shades: dict[str, Any], tmp_path: Path, task: str, label: str, caption: str, marks: tuple[str, ...]
) -> None:
    run, overrides = tmp_path / "run", [f"task.name={task}", f"data.label={label}"]
    first: Any = maskedmodel.finetune(shades, run=run, overrides=overrides, quiet=True)
    assert (run / "pictures" / "most_wrong.png").is_file()
    page = (run / "report.html").read_text()
    chart = page[page.index(f"<h3>{caption}") :]
    chart = chart[: chart.index("</figure>")]
    assert all(mark in chart for mark in marks)
    assert "most_wrong.png" in page
    again: Any = maskedmodel.finetune(shades, run=run, overrides=overrides, quiet=True)
    assert again.adapted.judged.charts == first.adapted.judged.charts
    (kept,) = json.loads((run / "outcome.json").read_text())["judged"]["charts"]
    assert kept["caption"] == caption
    assert len(kept["y"]) == (first.adapted.judged.samples if task == "regress" else 3)


def test_reading_masks_at_the_start_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(8):
            values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
            Image.fromarray(values).save(tmp_path / kind / f"{number}.png")
    data = {"name": "image_folder", "path": str(tmp_path / "images"), "mode": "grey", "size": None}
    config = {
        "data": {**data, "masks": str(tmp_path / "masks"), "mask_classes": ["a", "b"], "val_share": 0.25},
        "tokenizer": {"name": "image", "size": 8, "patch": 4, "channels": 1, "crop": None},
        "task": {"name": "segment"},
        "model": {"encoder": {"dim": 16, "depth": 1, "heads": 2}},
        "train": {"steps": 1, "batch": 4, "precision": "fp32", "device": "cpu"},
    }
    seen: list[tuple[str, int, int]] = []
    real = Display.phase

    def noted(display: Display, title: str, done: int, total: int) -> None:
        seen.append((title, done, total))
        real(display, title, done, total)

    monkeypatch.setattr(Display, "phase", noted)
    maskedmodel.finetune(config, run=tmp_path / "run", quiet=True)
    masks = [one for one in seen if one[0].startswith("targets of")]
    train = sum(title == "targets of train" for title, _, _ in masks)
    assert masks == [("targets of train", done, train) for done in range(train)] + [
        ("targets of val", done, 8 - train) for done in range(8 - train)
    ]
    assert 0 < train < 8
