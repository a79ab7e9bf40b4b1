"""Whole comparisons in this process: results, what is done again and what isn't, and failures."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskedmodel
from maskedmodel.comparison import compare as module
from maskedmodel.comparison.result import Comparison
from maskedmodel.comparison.scores import DEFAULT, judged_by, metrics_of
from maskedmodel.errors import ConfigError, DataError, DependencyError, TrainingError
from maskedmodel.plugins import Registry
from maskedmodel.training import checkpoint as checkpoints
from tests.comparison.conftest import TINY, Go, inline


def test_results_hold_every_run_and_its_figures(whole: Comparison) -> None:
    data = json.loads((whole.folder / "results.json").read_text())
    assert data == whole.data == Comparison.read(whole.folder).data
    assert (data["done"], data["total"], data["seeds"]) == (9, 9, [0, 1, 2])
    assert [arm["label"] for arm in data["arms"]] == ["uniform", "uniform ratio=0.25", "ramped"]
    for arm in data["arms"]:
        assert [run["folder"] for run in arm["runs"]] == [f"runs/{arm['slug']}/seed-{seed}" for seed in range(3)]
        for run in arm["runs"]:
            assert set(run["values"]) == {metric.key for metric in metrics_of(DEFAULT)}
            shares = [share for share, _ in run["curve"]]
            assert (shares[0], shares[-1]) == (0, 1)
            assert shares == sorted(shares)
    assert data["arms"][1]["summary"]["ratio"]["mean"] == pytest.approx(0.25)
    assert set(data["untrained"]) == {metric.key for metric in judged_by(DEFAULT)}
    assert data["arms"][0]["summary"]["loss@0.75"]["mean"] < data["untrained"]["loss@0.75"]
    assert any("learning rate runs its whole course" in note for note in data["notes"])


def test_a_run_of_a_comparison_is_a_run(whole: Comparison) -> None:
    folder = whole.folder / "runs" / "ramped" / "seed-1"
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        "checkpoints", "config.yaml", "environment.json", "metrics.jsonl", "probe.json", "report.html", "summary.json",
        "timings.jsonl", "yardstick.json",
    }  # fmt: skip
    model = maskedmodel.load(folder)
    assert model.scheduler.component_name() == "ramped"
    assert checkpoints.read_state(checkpoints.newest(folder))["step"] == whole.data["arms"][2]["steps"]


def test_callbacks_look_on_and_stop_no_run_of_a_comparison(
    go: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["train.validate_every=2", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=99"]
    found = go(tmp_path, ["uniform", "ramped"], seeds=1, overrides=[*options, "callbacks.tensorboard={}"])
    for arm in found.data["arms"]:
        folder = tmp_path / arm["runs"][0]["folder"]
        assert checkpoints.read_state(checkpoints.newest(folder))["step"] == arm["steps"]
        assert list((folder / "tensorboard").iterdir())
    assert any("can't stop one: each arm spends its whole budget" in note for note in found.data["notes"])
    assert "Callbacks look on in every run (early_stopping, tensorboard)" in caplog.text
    with pytest.raises(ConfigError, match="callbacks can't differ between arms: they change no result"):
        go(tmp_path / "vary", ["uniform"], vary=["callbacks=[]"])


def test_spreads_and_differences_are_those_of_the_runs(whole: Comparison) -> None:
    values = {(row["arm"], row["seed"]): row["linear"] for row in whole.runs}
    first = np.array([values["uniform", seed] for seed in range(3)])
    other = np.array([values["ramped", seed] for seed in range(3)])
    (row,) = [row for row in whole.table if (row["arm"], row["metric"]) == ("ramped", "linear")]
    assert row["mean"] == pytest.approx(other.mean())
    assert row["deviation"] == pytest.approx(other.std(ddof=1))
    assert row["difference"] == pytest.approx((other - first).mean())
    assert row["bootstrap_low"] <= row["difference"] <= row["bootstrap_high"]
    assert row["verdict"] in ("better", "worse", "no difference seen")
    (reference,) = [row for row in whole.table if (row["arm"], row["metric"]) == ("uniform", "linear")]
    assert "verdict" not in reference


def test_it_prints_its_table_and_its_verdicts(whole: Comparison) -> None:
    lines = str(whole).splitlines()
    assert lines[0].split("  ")[0] == "arm"
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "uniform", "uniform ratio=0.25", "ramped", "weights at the start",
    ]  # fmt: skip
    assert "ramped against uniform:" in lines
    assert any("95 %" in line for line in lines)
    assert lines[-1] == f"report  {whole.folder / 'report.html'}"


def test_a_pandas_view(whole: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = whole.to_pandas()
    assert len(frame) == 9
    assert frame.groupby("arm").linear.mean()["ramped"] == pytest.approx(
        whole.data["arms"][2]["summary"]["linear"]["mean"]
    )
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DependencyError, match="pandas"):
        whole.to_pandas()


def test_the_csv_is_the_runs(whole: Comparison) -> None:
    with (whole.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert [float(row["knn"]) for row in rows] == [row["knn"] for row in whole.runs]


def test_a_formula_stays_text_in_the_csv() -> None:
    from maskedmodel.files import spreadsheet_cell

    assert [spreadsheet_cell(value) for value in ("=1+1", "@x", "uniform", -0.5)] == ["'=1+1", "'@x", "uniform", -0.5]


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.glob("runs/*/seed-*/**/*") if path.is_file() and path.name != "config.yaml"]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files if path.name != ".lock"}


def test_what_is_finished_is_not_done_again(go: Go, done: list[str], tmp_path: Path) -> None:
    first = go(tmp_path / "a", seeds=1)
    assert done == ["uniform, seed 0", "uniform ratio=0.5, seed 0", "weights at the start"]
    before = stamps(tmp_path / "a")
    assert {row["verdict"] for row in first.table if "verdict" in row} == {"no verdict"}
    assert "one seed says nothing about chance" in str(first)
    assert "Fewer than 3 seeds" in str(first)
    assert "better:" not in str(first)
    done.clear()
    assert go(tmp_path / "a", seeds=1).data == first.data
    assert done == []
    assert stamps(tmp_path / "a") == before
    grown = go(tmp_path / "a", ("uniform", "uniform:ratio=0.5", "ramped"), seeds=2)
    assert done == ["ramped, seed 0", "uniform, seed 1", "uniform ratio=0.5, seed 1", "ramped, seed 1"]
    now = stamps(tmp_path / "a")
    assert {name: now[name] for name in before} == before
    assert grown.data["total"] == 6


def test_another_yardstick_measures_again_and_trains_nothing(go: Go, done: list[str], tmp_path: Path) -> None:
    go(tmp_path, seeds=1)
    metrics = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/checkpoints/*/model.safetensors")}
    done.clear()
    again = go(tmp_path, seeds=1, overrides=["evaluate.probe=true", "evaluate.neighbours=3"])
    assert len(done) == 3
    assert "k=3" in again.data["protocol"]
    assert {path: path.stat().st_mtime_ns for path in metrics} == metrics


def test_without_labels_the_loss_alone_is_compared(go: Go, tmp_path: Path) -> None:
    result = go(tmp_path, seeds=1)
    assert result.data["left_out"] == dict.fromkeys(("knn", "linear"), "evaluate.probe is off")
    assert {row["metric"] for row in result.table} == {"loss@0.25", "loss@0.5", "loss@0.75", "loss@0.9"}
    assert "evaluate.probe is off" in (tmp_path / "report.html").read_text()


def test_other_targets_leave_the_loss_out(go: Go, tmp_path: Path) -> None:
    vary = ["objective.normalise=false", "objective.normalise=true"]
    result = go(tmp_path, (), vary=vary, seeds=1, overrides=["evaluate.probe=true"])
    assert set(result.data["left_out"]) == {"loss@0.25", "loss@0.5", "loss@0.75", "loss@0.9"}
    assert {row["metric"] for row in result.table} == {"knn", "linear"}
    assert result.data["arms"][1]["differences"] == [["objective.normalise", False, True]]


def test_decoders_are_compared_like_masks(go: Go, tmp_path: Path) -> None:
    result = go(tmp_path, (), vary=["model.decoder.depth=1", "model.decoder.depth=3"], seeds=1)
    shallow, deep = result.data["arms"]
    assert deep["steps"] < shallow["steps"]  # the same work buys fewer steps of a deeper decoder
    assert deep["flops"] == pytest.approx(shallow["flops"], rel=0.1)
    assert not any(key.startswith("loss") for key in result.data["left_out"])


def test_a_run_that_fails_is_a_result_and_gives_no_verdict(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    real = inline(registry)

    def work(tasks: Any, devices: Any, **options: Any) -> None:
        for task in tasks:
            if task.run == ("uniform-ratio=0.5", 1):
                options["finished"](task, TrainingError("The loss isn't finite.", where="step 3"))
            else:
                real([task], devices, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "work", work)
        result = go(tmp_path, seeds=2)
    assert (result.data["done"], result.data["total"]) == (3, 4)
    (failed,) = [row for row in result.runs if row["failed"]]
    assert (failed["seed"], failed["linear"]) == (1, None)
    assert {row["verdict"] for row in result.table if "verdict" in row} == {"no verdict"}
    assert "aren't a fair choice" in str(result)
    page = (tmp_path / "report.html").read_text()
    assert "The loss isn&#x27;t finite." in page
    assert "Not finished: 3 of 4 runs" in page
    mended = go(tmp_path, seeds=2)
    assert (mended.data["done"], [row["failed"] for row in mended.runs]) == (4, [None] * 4)


def test_the_default_folder_is_named_after_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._folder("image-quickstart", None) == Path("runs/compare-image-quickstart")
    assert module._folder("configs/compare-cifar10.yaml", None) == Path("runs/compare-cifar10")
    assert module._folder(TINY, "x") == Path("x")
    with pytest.raises(ConfigError, match="no name"):
        module._folder(TINY, None)


def test_torchrun_and_no_process_are_refused(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--jobs"):
        go(tmp_path, jobs=0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"):
        go(tmp_path)


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the folder of a comparison"):
        Comparison.read(tmp_path)


def test_every_run_starts_from_the_weights_that_the_config_names(tmp_path: Path, go: Go) -> None:
    go(tmp_path / "first", seeds=1)
    start = next((tmp_path / "first" / "runs").glob("*/seed-0"))
    go(tmp_path / "second", seeds=1, overrides=[f"start={start}"])
    for run in (tmp_path / "second").glob("runs/*/seed-*"):
        kept = json.loads((run / "start.json").read_text())
        assert kept["fresh"] == []
        # The first validation is of those weights, under the fixed masks of the seed.
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        ended = json.loads((start / "summary.json").read_text())["val_loss_end"]
        assert lines[0]["val_loss"] == pytest.approx(ended, rel=1e-6)
    assert (tmp_path / "second" / "untrained" / "start.json").exists()
