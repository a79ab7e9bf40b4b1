"""finetune and predict as people type them: on a run of the quickstart's data, from the command line to the files."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

import maskedmodel
from maskedmodel.adapting import predictions
from maskedmodel.adapting.run import adapt
from maskedmodel.adapting.source import finetune_config, name_of
from maskedmodel.cli.app import run_cli
from maskedmodel.config.finetune import FinetuneTrain
from maskedmodel.errors import CheckpointError, ConfigError, DataError, PluginError
from maskedmodel.plugins import load_registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.distributed import World
from tests.runs import ENVIRONMENT, assert_same_run, command, pretrain

FEW = ("train.steps=4", "train.batch=16", "train.precision=fp32", "train.device=cpu", "train.validate_every=2",
       "train.checkpoint_every=2", "train.validation_samples=40")  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pretrained") / "small"
    pretrain(run, "train.steps=2")
    return run


@pytest.fixture(scope="module")
def tuned(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned run with its twin, made by the command."""
    folder = tmp_path_factory.mktemp("tuned")
    done = _maskedmodel("finetune", str(pretrained), *FEW, cwd=folder)
    assert done.returncode == 0, done.stderr
    run = folder / "runs/small-finetune"
    (run / "told.txt").write_text(done.stderr)
    (run / "said.txt").write_text(done.stdout)
    return run


def _maskedmodel(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)


def test_a_run_is_fine_tuned_beside_its_twin_and_says_how_well(tuned: Path) -> None:
    said = (tuned / "said.txt").read_text()
    rows = [line.split("  ")[0] for line in said.splitlines()]
    assert rows[:3] == ["", "fine-tuned", "same, from scratch"]
    assert (tuned / "told.txt").read_text().count("It starts from") == 1
    assert "1438 labelled training and 359 validation samples" in said
    assert f"maskedmodel predict {Path('runs/small-finetune')} FILES" in said
    ours, theirs = (json.loads((path / "outcome.json").read_text()) for path in (tuned, tuned / "from-scratch"))
    assert ours["labels"] == theirs["labels"] == 1438
    for outcome, line in ((ours, said.splitlines()[1]), (theirs, said.splitlines()[2])):
        assert f"{outcome['judged']['metrics']['accuracy']['value']:.3f} [" in line
    twin = (tuned / "from-scratch/config.yaml").read_text()
    assert "weights: null" in twin
    assert "layer_decay: 1.0" in twin


def test_the_report_holds_the_twin_the_classes_and_the_confusion(tuned: Path) -> None:
    page = (tuned / "report.html").read_text("utf-8")
    for text in ("same, from scratch", "By class", "Confusion: rows are true", "Validation: accuracy", "small-finetune",
                 "What the weights began with", "maskedmodel predict"):  # fmt: skip
        assert text in page, text
    assert "Loss on hidden tokens" not in page
    confusion = next(t for t in json.loads((tuned / "outcome.json").read_text())["judged"]["tables"] if t["shaded"])
    assert sum(cell for row in confusion["rows"] for cell in row[1:]) == 359


def test_the_same_command_again_leaves_it_as_it_is(tuned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tuned.rglob("*.safetensors")}
    result = maskedmodel.finetune(tuned / "config.yaml", run=tuned, quiet=True)
    assert result is not None
    assert str(result).splitlines()[1:3] == (tuned / "said.txt").read_text().splitlines()[1:3]
    assert {path: path.stat().st_mtime_ns for path in tuned.rglob("*.safetensors")} == before


def test_load_gives_a_model_that_predicts(tuned: Path) -> None:
    model = maskedmodel.load(tuned)
    assert isinstance(model, maskedmodel.FineTuned)
    assert not model.training
    pictures = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert model(pictures).shape == (3, 10)
    assert model.embed(pictures).shape == (3, 24)
    with pytest.raises(CheckpointError, match="This is a fine-tuned run"):
        maskedmodel.reconstruct(tuned)


def test_predictions_of_a_split(tuned: Path, tmp_path: Path) -> None:
    found = maskedmodel.predict(tuned, "val", to=tmp_path / "p.parquet", quiet=True)
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert found.rows == len(table["id"]) == len(set(table["id"])) == 359
    shares = np.array([table[f"p_{digit}"] for digit in range(10)])
    assert shares.sum(0) == pytest.approx(np.ones(359), abs=1e-5)
    assert table["label"] == [str(digit) for digit in shares.argmax(0)]
    assert table["confidence"] == pytest.approx(shares.max(0))
    judged = json.loads((tuned / "outcome.json").read_text())["judged"]
    truth = {tuple(row[:1]): row for row in judged["tables"][0]["rows"]}
    right = sum(round(row[2] * row[4]) for row in truth.values())  # recall times samples
    data = maskedmodel.load(tuned).task.names  # type: ignore[union-attr]
    assert data == tuple("0123456789")
    assert judged["metrics"]["accuracy"]["value"] == pytest.approx(right / 359)


def test_predictions_of_files_and_folders(tuned: Path, tmp_path: Path) -> None:
    """Of pictures named one by one and as a folder: the same, by the run's own preparation."""
    (tmp_path / "new").mkdir()
    generator = np.random.default_rng(0)
    for index in range(3):
        values = generator.integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"new/{index}.png")
    how = ("data.name=image_folder", "data.size=16", "data.mode=grey")
    done = _maskedmodel("predict", str(tuned), "new", *how, "--to", "folder.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 predictions in" in done.stdout
    with (tmp_path / "folder.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["id"] for row in rows) == ["0.png", "1.png", "2.png"]
    assert all(row["label"] in "0123456789" for row in rows)


def test_killed_predictions_go_on(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "PIECE", 100)
    maskedmodel.predict(tuned, "val", to=tmp_path / "straight.csv", quiet=True)
    real, done = predictions._predict, []

    def dying(*arguments: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[2].name)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "_predict", dying)
        with pytest.raises(KeyboardInterrupt):
            maskedmodel.predict(tuned, "val", to=tmp_path / "cut.csv", quiet=True)
    assert not (tmp_path / "cut.csv").exists()
    again: list[str] = []
    monkeypatch.setattr(predictions, "_predict", lambda *a: (again.append(a[2].name), real(*a)))
    maskedmodel.predict(tuned, "val", to=tmp_path / "cut.csv", quiet=True)
    assert len(again) == 2  # of four pieces
    assert not set(again) & set(done)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.csv", "straight.csv"]


def test_how_samples_are_read_may_be_said_and_nothing_else_is_ignored(
    tuned: Path, pretrained: Path, tmp_path: Path
) -> None:
    """A folder with a broken file, of runs whose own policy is to fail."""
    (tmp_path / "new").mkdir()
    for index in range(3):
        Image.fromarray(np.full((16, 16), 80 * index, dtype=np.uint8)).save(tmp_path / f"new/{index}.png")
    (tmp_path / "new/1.png").write_bytes(b"cut")
    how = ["data.name=image_folder", "data.size=16", "data.mode=grey"]
    for run, verb in ((tuned, maskedmodel.predict), (tuned, maskedmodel.embed), (pretrained, maskedmodel.embed)):
        call = functools.partial(verb, run, to=tmp_path / "found.csv", quiet=True)
        with pytest.raises(DataError, match=r"train\.on_bad_sample=skip"):
            call(tmp_path / "new", overrides=how)
        call(tmp_path / "new", overrides=[*how, "train.on_bad_sample=skip"])
        with (tmp_path / "found.csv").open() as file:
            assert sorted(row["id"] for row in csv.DictReader(file)) == ["0.png", "2.png"]
        with pytest.raises(ConfigError, match=r"optim\.lr"):
            call(tmp_path / "new", overrides=[*how, "optim.lr=0.1"])
        with pytest.raises(ConfigError, match="own data"):
            call("val", overrides=["data.name=image_folder"])
    done = maskedmodel.predict(
        tuned, tmp_path / "new", to=tmp_path / "p.csv", overrides=[*how, "train.on_bad_sample=skip"], quiet=True
    )
    assert (done.rows, done.left_out) == (2, 1)


@pytest.mark.parametrize(
    ("columns", "text"),
    [({"label": ["7"]}, "one row for each of"), ({"id": ["1", "2"]}, "names other than id")],
)
def test_columns_that_do_not_fit_are_refused(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any], text: str
) -> None:
    kind = load_registry().get("task", "classify")
    monkeypatch.setattr(kind, "columns", lambda task, prediction: columns)
    with pytest.raises(PluginError, match=text):
        maskedmodel.predict(tuned, "val", to=tmp_path / "p.csv", quiet=True)
    assert not (tmp_path / "p.csv").exists()


def test_bad_input_to_predict(tuned: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="isn't fine-tuned"):
        maskedmodel.predict(pretrained, "val", to=tmp_path / "p.csv")
    with pytest.raises(DataError, match=r"expected: \.parquet or \.csv"):
        maskedmodel.predict(tuned, "val", to=tmp_path / "p.txt")
    with pytest.raises(DataError, match="no such folder"):
        maskedmodel.predict(tuned, "val", to=tmp_path / "nowhere/p.csv")
    with pytest.raises(DataError, match="no such data"):
        maskedmodel.predict(tuned, tmp_path / "nothing", to=tmp_path / "p.csv")


@pytest.mark.slow
def test_a_label_curve(pretrained: Path, tmp_path: Path) -> None:
    arguments = ("finetune", str(pretrained), *FEW, "--labels", "2%,20", "--seeds", "2", "--from-scratch")
    done = _maskedmodel(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/small-finetune-labels"
    results = json.loads((folder / "results.json").read_text())
    assert [point["count"] for point in results["points"]] == [20, 29]  # 2 % of 1438 are 29
    for point in results["points"]:
        for arm, name in (("started", "started"), ("scratch", "from-scratch")):
            place = folder / f"labels-{point['labels'].replace('%', '-percent')}" / name
            scores = [json.loads((place / f"seed-{seed}/outcome.json").read_text()) for seed in range(2)]
            values = [outcome["judged"]["metrics"]["accuracy"]["value"] for outcome in scores]
            assert point[arm]["mean"] == pytest.approx(np.mean(values))
            assert {outcome["labels"] for outcome in scores} == {point["count"]}
        assert point["difference"]["mean"] == pytest.approx(point["started"]["mean"] - point["scratch"]["mean"])
        assert point["difference"]["verdict"] == "no verdict"  # two seeds give none
    assert "20 " in done.stdout
    with Image.open(folder / "label-curve.png") as picture:
        assert picture.size == (960, 630)
    assert "data:image/png" in (folder / "report.html").read_text()
    shutil.rmtree(folder / "labels-20/started/seed-1")  # as if it hadn't been reached
    (folder / "results.json").unlink()
    kept = folder / "labels-20/started/seed-0/outcome.json"
    before = kept.stat().st_mtime_ns
    assert _maskedmodel(*arguments, cwd=tmp_path).returncode == 0
    assert json.loads((folder / "results.json").read_text()) == results
    assert kept.stat().st_mtime_ns == before


@pytest.mark.slow
def test_from_scratch_alone_starts_from_nothing(pretrained: Path, tmp_path: Path) -> None:
    done = _maskedmodel("finetune", str(pretrained), *FEW, "--from-scratch", "--labels", "30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/small-finetune-scratch"
    assert "from fresh weights" in done.stdout
    assert "30 labelled training" in done.stdout
    assert not (run / "start.json").exists()
    assert not (run / "from-scratch").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere",), "nowhere"),
        ((), "Missing argument"),
        (("RUN", "--labels", "ten"), "no number of labels"),
        (("RUN", "--labels", "10,10"), "given twice"),
        (("RUN", "task.name=regres"), "regress"),
        (("RUN", "adapt.layerdecay=0.5"), "layer_decay"),
        (("RUN", "--labels", "5000"), "at most 1438"),
    ],
)
def test_a_slip_is_told_in_words(
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(pretrained) if argument == "RUN" else argument for argument in arguments]
    assert run_cli(["finetune", *given]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert "Traceback" not in told


def test_what_a_source_is_called(tmp_path: Path, pretrained: Path, tuned: Path) -> None:
    assert name_of(pretrained) == "small-finetune"
    assert name_of(checkpoints.newest(pretrained)) == "small-finetune"
    assert name_of("adapt.yaml") == "adapt"
    with pytest.raises(ConfigError, match="no name"):
        name_of({})


def test_a_fine_tuned_run_is_fine_tuned_further(tmp_path: Path, tuned: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its encoder and its task; its head, too, where task and classes are the same; never its own folder."""
    config = finetune_config(tuned, (), load_registry())
    assert config.task.name == "classify"
    assert config.start.weights == str(tuned)
    assert "is fine-tuned already" in caplog.text
    few = ("train.steps=1", "optim.lr=1e-12", "optim.min_lr=0")
    maskedmodel.finetune(tuned, run=tmp_path / "same", overrides=few, twin=False, quiet=True)
    assert "its head is taken, too" in caplog.text
    old, new = (maskedmodel.load(run) for run in (tuned, tmp_path / "same"))
    torch.testing.assert_close(new.task.head.weight, old.task.head.weight)
    torch.testing.assert_close(new.encoder.state_dict(), old.encoder.state_dict())
    caplog.clear()
    overrides = (*few, "task.name=regress")
    maskedmodel.finetune(tuned, run=tmp_path / "other", overrides=overrides, twin=False, quiet=True)
    assert "its head is left out, and a fresh one trained" in caplog.text
    told = json.loads((tmp_path / "other" / "start.json").read_text())
    assert "task.head.weight" in told["fresh"]
    assert "task.head.weight" in told["left_out"]


def test_foreign_weights_are_fine_tuned_on_data_that_is_named(tmp_path: Path) -> None:
    import timm

    def plain(dim: int, heads: int) -> torch.nn.Module:
        return timm.models.VisionTransformer(16, 4, in_chans=1, embed_dim=dim, depth=1, num_heads=heads)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, narrow = plain(192, 3), plain(24, 2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = finetune_config(
        tmp_path / "weights.pth",
        ["data.name=digits", "data.size=16"],
        load_registry(),
    )
    assert (config.model.encoder.dim, config.model.encoder.depth, config.model.encoder.heads) == (192, 1, 3)
    assert config.tokenizer.channels == 1
    found = adapt(config.model_copy(update={"train": FinetuneTrain(steps=1, batch=8)}), tmp_path / "run",
                  load_registry(), World(0, 1, torch.device("cpu")), quiet=True)  # fmt: skip
    assert found is not None
    told = json.loads((tmp_path / "run/start.json").read_text())
    assert "encoder.blocks.0.qkv.weight" in told["loaded"]
    torch.save(narrow.state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match="takes it as an option"):
        finetune_config(tmp_path / "narrow.pth", ["data.name=digits"], load_registry())
    assert config.start.weights == str(tmp_path / "weights.pth")


@pytest.mark.slow
def test_killed_by_a_signal_it_resumes_to_the_same_bits(pretrained: Path, tmp_path: Path) -> None:
    options = (*FEW, "train.steps=12", "--no-twin", "adapt.ema=0.9", "adapt.drop_path=0.2")
    straight = _maskedmodel("finetune", str(pretrained), *options, "--run", "straight", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    cut = subprocess.Popen(command("finetune", str(pretrained), *options, "--run", "cut"), cwd=tmp_path,
                           env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while cut.poll() is None and not list((tmp_path / "cut").glob("checkpoints/step-*")):
        time.sleep(0.01)
    os.kill(cut.pid, signal.SIGKILL)
    cut.wait()
    assert _maskedmodel("finetune", str(pretrained), *options, "--run", "cut", cwd=tmp_path).returncode == 0
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


@pytest.mark.slow
def test_two_ranks_fine_tune_as_one_process(pretrained: Path, tmp_path: Path) -> None:
    """Weighted classes, mixing, depth and an average included."""
    options = (*FEW, "adapt.labels=100", "adapt.mixup=0.4", "adapt.ema=0.9", "adapt.drop_path=0.2",
               "task.class_weights=balanced", "--no-twin")  # fmt: skip
    one = _maskedmodel("finetune", str(pretrained), *options, "--run", "one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "maskedmodel")
    two = subprocess.run([*launch, "--", "finetune", str(pretrained), *options, "--run", "two"], cwd=tmp_path,
                         env=ENVIRONMENT, capture_output=True, text=True)  # fmt: skip
    assert two.returncode == 0, two.stderr
    lines = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
             for name in ("one", "two")]  # fmt: skip
    assert len(lines[0]) == len(lines[1]) > 3
    for ours, theirs in zip(*lines, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    ours, theirs = (checkpoints.read_model(checkpoints.newest(tmp_path / name)) for name in ("one", "two"))
    for name in ours.keys() - {name for name in ours if name.endswith("qkv.bias")}:  # a key's bias has no gradient
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=2e-5, msg=name)
