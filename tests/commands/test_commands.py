"""Whole runs from the command line: killed, terminated, in parallel, on bad input. Each in a process of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import maskedmodel
from maskedmodel.training import checkpoint as checkpoints
from tests.runs import ENVIRONMENT, SMALL, assert_same_run, on_two_ranks, pretrain, tensors, wait_for


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "straight"
    pretrain(run, "train.steps=60", "train.checkpoint_every=7")
    return run


def test_killed_at_any_moment_ends_the_same(straight: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    run, lines = tmp_path / "killed", 0
    for _ in range(3):
        process = pretrain(run, "train.steps=60", "train.checkpoint_every=7", wait=False)
        lines = min(lines + generator.randint(8, 18), 55)
        wait_for(run, lines, process)
        time.sleep(generator.random() * 0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert checkpoints.find(run) is not None
    pretrain(run, "train.steps=60", "train.checkpoint_every=7")
    assert_same_run(straight, run)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_terminated_saves_at_once_and_resumes(straight: Path, tmp_path: Path, workers: int) -> None:
    run = tmp_path / "terminated"
    arguments = ("train.steps=60", "train.checkpoint_every=1000", f"train.workers={workers}")
    process = pretrain(run, *arguments, wait=False)
    wait_for(run, 12, process)
    os.killpg(process.pid, signal.SIGTERM)  # the workers get it too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert "resumes" in err
    assert checkpoints.read_state(checkpoints.newest(run))["step"] >= 10
    pretrain(run, *arguments)
    ours, theirs = tensors(run), tensors(straight)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (run / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_interrupted_from_the_keyboard(tmp_path: Path) -> None:
    process = pretrain(tmp_path / "run", "train.steps=5000", wait=False)
    wait_for(tmp_path / "run", 5, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert checkpoints.find(tmp_path / "run") is not None


def test_a_second_process_is_refused_the_folder(tmp_path: Path) -> None:
    first = pretrain(tmp_path / "run", "train.steps=5000", wait=False)
    wait_for(tmp_path / "run", 2, first)
    second = pretrain(tmp_path / "run", "train.steps=5000", wait=False)
    _, err = second.communicate(timeout=60)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.returncode == 2
    assert f"process {first.pid}" in err


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    alone, ranks = tmp_path / "alone", tmp_path / "ranks"
    overrides = ("train.steps=4", "train.workers=1")
    pretrain(alone, *overrides)
    on_two_ranks(ranks, *overrides)
    for ours, theirs in zip(lines_of(alone), lines_of(ranks), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["step"] == theirs["step"]
        for key, value in ours.items():
            assert theirs[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert (ranks / "report.html").exists()


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_stop_together_on_a_signal(tmp_path: Path) -> None:
    run = tmp_path / "ranks"
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "maskedmodel",
         "--", "pretrain", "--run", str(run), *SMALL, "train.steps=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    wait_for(run, 5, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert checkpoints.read_state(checkpoints.newest(run))["step"] >= 4


def test_changed_config_is_refused_and_named(straight: Path) -> None:
    process = pretrain(straight, "train.steps=60", "train.checkpoint_every=7", "optim.lr=0.5", wait=False)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "optim.lr was 0.0015, now 0.5" in err


def test_settings_that_change_no_result_may_change(straight: Path) -> None:
    before = (straight / "metrics.jsonl").read_bytes()
    pretrain(straight, "train.steps=60", "train.checkpoint_every=9", "train.workers=1", "evaluate.pictures=1")
    assert (straight / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_falls_back(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("train.steps=20", "train.checkpoint_every=7")
    pretrain(run, *arguments)
    reference = tensors(run)
    newest = checkpoints.newest(run) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    again = pretrain(run, *arguments, wait=False)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "step-00000020" in err
    assert "damaged" in err
    assert all(torch.equal(reference[key], value) for key, value in tensors(run).items())


def test_what_a_run_leaves_behind(straight: Path) -> None:
    names = {path.name for path in straight.iterdir()} - {".lock"}
    assert names == {
        "checkpoints", "config.yaml", "data.json", "environment.json", "metrics.jsonl", "pictures", "report.html",
        "summary.json", "timings.jsonl",
    }  # fmt: skip
    summary = json.loads((straight / "summary.json").read_text())
    assert summary["val_loss_end"] < summary["val_loss_start"]
    assert Image.open(straight / "pictures/reconstruction.png").width > 100


def test_a_run_from_python(straight: Path, tmp_path: Path) -> None:
    model = maskedmodel.load(straight)
    signal_ = torch.rand(2, 1, 16, 16)
    assert model.encode(signal_).shape == (2, 64, 24)
    assert torch.equal(model.encode(signal_), model.encode(signal_))
    assert model.embed(signal_).shape == model.embed(signal_, "class").shape == (2, 24)

    result = maskedmodel.probe(straight, quiet=True)
    assert {row.name for row in result.rows} == {"trained encoder", "same encoder, random weights", "raw values"}
    assert json.loads((straight / "probe.json").read_text()) == json.loads(json.dumps(result.to_dict()))

    Image.new("L", (20, 30), 128).save(tmp_path / "grey.png")
    assert maskedmodel.reconstruct(straight, [tmp_path / "grey.png"], out=tmp_path / "a.png").exists()
    assert maskedmodel.reconstruct(straight, count=3).parent == straight / "pictures"
    with pytest.raises(maskedmodel.MaskedModelError, match="oracle"):
        maskedmodel.reconstruct(straight, mode="oracle")

    assert maskedmodel.embed(straight, "val", to=tmp_path / "val.npz", quiet=True).exists()
    (tmp_path / "pictures").mkdir()
    for name in "abcdefgh":
        Image.new("L", (16, 16), ord(name)).save(tmp_path / "pictures" / f"{name}.png")
    told = ["data.mode=grey", "data.size=16"]
    maskedmodel.embed(straight, tmp_path / "pictures", to=tmp_path / "own.csv", overrides=told, quiet=True)
    assert len((tmp_path / "own.csv").read_text().splitlines()) == 9


def test_preview_and_doctor(tmp_path: Path) -> None:
    path = maskedmodel.preview(overrides=["mask.name=ramped"], out=tmp_path / "preview.png")
    assert Image.open(path).width > 100
    from maskedmodel.commands import doctor

    found = doctor(overrides=["train.batch=4"])
    assert found["tokens"] == 64
    assert found["visible"] == 16
    assert {split: of["count"] for split, of in found["samples"].items()} == {"train": 1438, "val": 359}
    assert found["samples"]["val"]["shapes"] == {"(1, 16, 16) float32": 64}
    assert found["samples"]["val"]["values"] == "0 to 1"
    assert sum(found["samples"]["val"]["labels"].values()) == 64


@pytest.mark.parametrize("mask", ["attention", "curriculum", "gated", "hard_patches", "sampled"])
def test_a_preview_has_the_networks_and_teachers_of_masks(
    mask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskedmodel.commands.pictures import pictures

    drawn: list[Any] = []
    draw = pictures.preview
    monkeypatch.setattr(pictures, "preview", lambda *given, **more: drawn.append(given) or draw(*given, **more))
    maskedmodel.preview(overrides=[f"mask.name={mask}", "mask.ratio=0.75"], out=tmp_path / "preview.png")
    ((tokenizer, scheduler, signals, ids),) = drawn
    hidden = scheduler.sample(tokenizer.tokenize(signals), 0.5, maskedmodel.Noise.of(ids, seed=0, epoch=0)).hidden
    assert hidden.sum(1).tolist() == [48] * 4


def test_imported_weights_are_a_run(straight: Path, tmp_path: Path) -> None:
    from maskedmodel.weights.runs import save

    save(maskedmodel.load(straight), tmp_path / "imported")
    signal_ = torch.rand(1, 1, 16, 16)
    imported = maskedmodel.load(tmp_path / "imported")
    assert torch.equal(imported.encode(signal_), maskedmodel.load(straight).encode(signal_))
    with pytest.raises(maskedmodel.ConfigError, match="no data of its own"):
        maskedmodel.reconstruct(tmp_path / "imported")


BAD = {
    "a typo in a setting": (["train.stpes=5"], "Did you mean"),
    "a typo in a name": (["mask.name=unifrom"], "uniform"),
    "a ratio of 1": (["mask.ratio=1"], "mask.ratio"),
    "a ratio of 0": (["mask.ratio=0"], "mask.ratio"),
    "a size that doesn't divide": (["tokenizer.patch=3"], "multiple of 3"),
    "data that isn't there": (["data.name=image_folder", "data.path=nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message(case: str, tmp_path: Path) -> None:
    overrides, said = BAD[case]
    process = pretrain(tmp_path / "run", *overrides, wait=False)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_folder_that_cant_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = pretrain(tmp_path / "file" / "run", wait=False)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "can't be written to" in err


def test_a_full_disk_says_so_and_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(run, "train.steps=4")
    kept = checkpoints.newest(run)
    script = (
        "import resource, sys; from maskedmodel.cli.app import run_cli;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"sys.exit(run_cli(['pretrain', '--run', {str(run)!r}, *{SMALL!r}, 'train.steps=4']))"
    )
    (kept / "COMMITTED").unlink()  # so that it has to write one
    failed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=120
    )
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list((run / "checkpoints").glob(".*.writing"))
