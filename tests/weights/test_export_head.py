"""Exports of fine-tuned models compute what those do, head and all; what a library can't say is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import maskedmodel
from maskedmodel import FineTuned, export, load
from maskedmodel.config.build import FinetuneComponents, component
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import dump_config, load_config
from maskedmodel.errors import CheckpointError
from maskedmodel.plugins import load_registry
from maskedmodel.tasks import Labels
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.weights.finetuned import build, write_labels

NAMES = ("cat", "dog", "owl")


def tuned(folder: Path, task: dict[str, Any], labels: Labels | None = None, **model: Any) -> Path:
    """The folder of a fine-tuned run, whose weights are drawn."""
    registry = load_registry(strict=True)
    tokenizer = {"name": "image", "size": 12, "patch": 4, "channels": 3}
    tokenizer = model.pop("tokenizer", tokenizer)
    given = {
        "data": {"name": "image_folder", "path": "nowhere"},
        "tokenizer": tokenizer,
        "task": task,
        "model": {"encoder": {"dim": 24, "depth": 2, "heads": 2, **model}},
    }
    config = load_config(given, registry=registry, kind=FinetuneConfig)
    parts = FinetuneComponents(
        component("tokenizer", config.tokenizer, registry), component("task", config.task, registry), None, None
    )
    labels = labels or Labels(NAMES, (3, 2, 4))
    made = build(config, parts, labels)
    for name, parameter in made.named_parameters():  # a head begins with next to nothing
        if name.startswith("task."):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    folder.mkdir()
    checkpoints.save(folder, 0, made.state_dict(), {}, {})
    (folder / "config.yaml").write_text(dump_config(config))
    write_labels(folder, labels, {})
    return folder


def signal(model: FineTuned, batch: int) -> Tensor:
    return model.tokenizer.prepare(model.tokenizer.example(batch, torch.Generator().manual_seed(5)))


SERIES = {"name": "series", "length": 24, "patch": 6, "normalise": "none"}
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classes by the mean": ({"name": "classify"}, {}),
    "classes by the class token": ({"name": "classify", "pool": "class"}, {}),
    "tags": ({"name": "tag"}, {"labels": Labels(("a", "a|b"), (2, 2))}),
    "numbers": ({"name": "regress"}, {"labels": Labels(("1", "2.5"), (2, 2))}),
    "pixels": ({"name": "segment"}, {}),
    "pixels between tokens": ({"name": "segment", "head": "upsample"}, {}),
    "a horizon": ({"name": "forecast"}, {"tokenizer": SERIES, "labels": Labels((), (), (1, 5)), "positions": "rotary"}),
}


@pytest.mark.parametrize("case", TASKS)
@pytest.mark.parametrize("target", ["safetensors", "torch", "onnx"])
def test_a_head_goes_with_its_encoder(case: str, target: str, tmp_path: Path) -> None:
    task, more = TASKS[case]
    run = tuned(tmp_path / "run", task, **more)
    model = load(run)
    assert isinstance(model, FineTuned)
    found = export(run, target)
    assert found.about["difference"] <= found.about["tolerance"]
    assert f"with its head for task {task['name']!r}" in found.about["what"]
    assert "fine-tuned with maskedmodel" in (found.folder / "README.md").read_text()
    for batch in (1, 3, 8):
        given = signal(model, batch)
        with torch.no_grad():
            expected = model(given)
        if target == "safetensors":
            again = load(found.folder)
            assert isinstance(again, FineTuned)
            assert again.labels == model.labels
            with torch.no_grad():
                assert torch.equal(again(given), expected)
        elif target == "torch":
            program = torch.export.load(found.folder / "model.pt2").module()
            torch.testing.assert_close(program(given), expected, rtol=1e-4, atol=1e-5)
        else:
            runtime = pytest.importorskip("onnxruntime")
            session = runtime.InferenceSession(str(found.folder / "model.onnx"), providers=["CPUExecutionProvider"])
            (values,) = session.run(["predictions"], {"signal": given.numpy()})
            torch.testing.assert_close(torch.from_numpy(values), expected, rtol=1e-4, atol=1e-5)


def test_transformers_classifies_alike(tmp_path: Path) -> None:
    run = tuned(tmp_path / "run", {"name": "classify", "pool": "class"})
    model = load(run)
    assert isinstance(model, FineTuned)
    found = export(run, "huggingface")
    theirs = transformers.ViTForImageClassification.from_pretrained(found.folder).eval()
    assert theirs.config.id2label == dict(enumerate(NAMES))
    mean, std = (x.reshape(-1, 1, 1) for x in (model.tokenizer.mean, model.tokenizer.std))
    pictures = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(theirs((pictures - mean) / std).logits, model(pictures), rtol=1e-4, atol=1e-5)
    assert json.loads((found.folder / "preprocessor_config.json").read_text())["image_mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("target", "task", "model", "reason"),
    [
        ("huggingface", {"name": "classify"}, {}, "the mean of the tokens; fine-tune with task.pool=class"),
        ("huggingface", {"name": "segment"}, {}, "this task is 'segment'"),
        ("huggingface", {"name": "classify", "pool": "class"}, {"registers": 2}, "no register tokens"),
        ("huggingface", {"name": "classify", "pool": "class"}, {"positions": "rotary"}, "rotary"),
        ("timm", {"name": "classify"}, {}, "no head is written for timm"),
    ],
)
def test_what_a_library_cannot_say_is_refused(
    target: str, task: dict[str, Any], model: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    run = tuned(tmp_path / "run", task, **model)
    with pytest.raises(CheckpointError, match=reason):
        export(run, target)
    assert not (run / "exports" / target).exists()


def test_the_command_exports_a_fine_tuned_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maskedmodel.cli.app import run_cli

    run = tuned(tmp_path / "run", {"name": "classify"})
    assert run_cli(["export", str(run), "--to", "torch"]) == 0
    assert "the encoder with its head" in capsys.readouterr().out
    assert maskedmodel.load(run).task.names == NAMES
