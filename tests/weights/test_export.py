"""Exports compute what their models compute, in the libraries that they are for; the inexpressible is refused."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor

import maskedmodel
from maskedmodel import MaskedAutoencoder, export, load
from maskedmodel.cli.app import run_cli
from maskedmodel.errors import CheckpointError, ConfigError, DependencyError
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.weights.build import Spec, build
from maskedmodel.weights.export import write
from maskedmodel.weights.export.graph import Features
from maskedmodel.weights.runs import save

ENCODER = {"dim": 24, "depth": 2, "heads": 2}
DECODER = {"dim": 16, "depth": 1, "heads": 2}
IMAGE = {"size": 12, "patch": 4, "channels": 3, "normalise": "imagenet"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(strict=True)


def model_of(
    registry: Registry,
    name: str = "image",
    tokens: dict[str, Any] | None = None,
    objective: dict[str, Any] | None = None,
    **stacks: dict[str, Any],
) -> MaskedAutoencoder:
    encoder, decoder = ({**own, **stacks.get(side, {})} for side, own in (("encoder", ENCODER), ("decoder", DECODER)))
    spec = Spec((name, tokens or IMAGE), ("uniform", {}), ("patch", objective or {}), encoder, decoder)
    model = build(spec, registry, "a test")
    with seeded(1), torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


def signal(model: MaskedAutoencoder, batch: int = 2) -> Tensor:
    return model.tokenizer.prepare(model.tokenizer.example(batch, torch.Generator().manual_seed(5)))


def normalised(values: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (values - mean[:, None, None]) / std[:, None, None]


@pytest.fixture
def run(registry: Registry, tmp_path: Path) -> Path:
    return save(model_of(registry), tmp_path / "run")


@pytest.mark.parametrize("whole", [True, False])
def test_our_own_layout_is_exact(run: Path, whole: bool, registry: Registry, tmp_path: Path) -> None:
    model = load(run)
    if not whole:
        model.decoder_loaded = False
        run = save(model, tmp_path / "encoder")
    done = export(run, "safetensors")
    assert done.folder == run / "exports" / "safetensors"
    assert done.about["difference"] == 0
    again = load(done.folder)
    assert again.decoder_loaded is whole
    own = model.state_dict()
    for name, tensor in again.state_dict().items():
        assert not whole or torch.equal(tensor, own[name])
    assert torch.equal(again.encode(signal(model)), model.encode(signal(model)))
    for name in ("export.json", "README.md", "config.json"):  # which may be published
        assert str(tmp_path) not in (done.folder / name).read_text()


SOUND: dict[str, Any] = {
    "name": "spectrogram",
    "tokens": {"mels": 16, "duration": 0.31, "patch": 4, "statistics": "audioset"},
}
TIMM: dict[str, dict[str, Any]] = {
    "MAE": {},
    "registers": {"encoder": {"registers": 3}},
    "no class token": {"encoder": {"class_token": False}},
    "learned": {"encoder": {"positions": "learned", "mlp_ratio": 2.5}},
    "a table": {"encoder": {"positions": "table"}},
    "oblong": {"tokens": {**IMAGE, "size": (8, 12), "patch": (4, 2)}},
    "one channel": {"tokens": {"size": 12, "patch": 4, "channels": 1}},
    "sound": SOUND,
}


@pytest.mark.parametrize("case", TIMM)
def test_timm_gives_the_same_features(case: str, registry: Registry, tmp_path: Path) -> None:
    model = model_of(registry, **TIMM[case])
    done = export(save(model, tmp_path / "run"), "timm")
    assert done.about["difference"] < 1e-5
    theirs = timm.create_model(f"local-dir:{done.folder}", pretrained=True).eval()
    given = signal(model)
    scaled = normalised(given) if case not in ("one channel", "sound") else (given - 0.5) / 0.5
    if case == "sound":
        assert given.isnan().any()  # the last frames of a window
        scaled = ((given + 4.2677393) / (2 * 4.5689974)).nan_to_num(0.0)
    with torch.no_grad():
        features = theirs.forward_features(scaled)[:, model.encoder.prefix :]
        torch.testing.assert_close(features, model.encode(given), rtol=0, atol=1e-5)
        if case == "sound":  # which comes back as a picture of one channel
            return
        # And back again.
        torch.testing.assert_close(load(done.folder).encode(given), model.encode(given), rtol=0, atol=1e-5)


def test_a_published_size_has_timms_name(registry: Registry, tmp_path: Path) -> None:
    sizes = {"tokens": {"size": 224, "patch": 16}, "encoder": {"dim": 192, "depth": 12, "heads": 3}}
    done = export(save(model_of(registry, **sizes), tmp_path / "run"), "timm")
    assert json.loads((done.folder / "config.json").read_text())["architecture"] == "vit_tiny_patch16_224"
    state = timm.create_model(f"local-dir:{done.folder}", pretrained=True).state_dict()
    timm.create_model("vit_tiny_patch16_224", num_classes=0).load_state_dict(state)


TUBES = {"frames": 4, "size": 16, "patch": (2, 4, 4), "channels": 3, "normalise": "imagenet"}
INTERLEAVED = {"positions": "interleaved"}
VIDEO: dict[str, Any] = {
    "name": "tubes",
    "tokens": TUBES,
    "objective": {"normalise": True, "per": "channel", "epsilon_at": "spread"},
    "encoder": {**INTERLEAVED, "class_token": False},
    "decoder": {**INTERLEAVED, "final_norm_eps": 1e-5},
}
HUGGINGFACE = {
    "MAE": ({}, "ViTMAEForPreTraining"),
    "MAE of one channel": ({"tokens": {"size": 12, "patch": 4, "channels": 1}}, "ViTMAEForPreTraining"),
    "cross": ({"decoder": {"attention": "cross"}}, "ViTModel"),
    "a table, oblong": (
        {"encoder": {"positions": "table"}, "tokens": {**IMAGE, "size": (8, 12)}},
        "ViTModel",
    ),
    "oblong": ({"tokens": {**IMAGE, "size": (8, 12)}}, "ViTModel"),
    "registers": ({"encoder": {"registers": 2}}, "Dinov2WithRegistersModel"),
    "sound": (SOUND, "ViTModel"),
    "video": (VIDEO, "VideoMAEModel"),
}


@pytest.mark.parametrize("case", HUGGINGFACE)
def test_transformers_gives_the_same(case: str, registry: Registry, tmp_path: Path) -> None:
    changes, name = HUGGINGFACE[case]
    model = model_of(registry, **changes)
    done = export(save(model, tmp_path / "run"), "huggingface")
    assert done.about["difference"] < 1e-5
    assert done.about["what"].startswith(name)
    assert f"transformers.{name}.from_pretrained('FOLDER'" in done.about["load"]
    assert str(done.folder) in str(done)
    if case == "sound":  # which comes back as a picture of one channel
        return
    given = signal(model)
    again = load(done.folder)
    torch.testing.assert_close(again.encode(given), model.encode(given), rtol=0, atol=1e-5)
    if name == "ViTMAEForPreTraining":
        assert again.decoder_loaded
        mask = model(given).mask
        torch.testing.assert_close(again(given, mask).prediction, model(given, mask).prediction, rtol=0, atol=1e-5)
    else:
        assert any("the decoder is left out" in note for note in done.about["notes"])


def test_a_video_model_without_a_bias_goes_whole(registry: Registry, tmp_path: Path) -> None:
    model = model_of(registry, **VIDEO)
    with torch.no_grad():
        model.decoder.embed.bias.zero_()
    done = export(save(model, tmp_path / "run"), "huggingface")
    assert done.about["what"] == "VideoMAEForPreTraining"
    assert done.about["difference"] < 1e-5
    given = signal(model)
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(done.folder).eval()
    mask = model(given).mask
    with torch.no_grad():
        logits = theirs(normalised(given.transpose(1, 2)), bool_masked_pos=mask.hidden).logits
        torch.testing.assert_close(logits, model(given, mask).prediction, rtol=0, atol=1e-5)


def test_the_image_processor_says_how_pictures_are_normalised(run: Path) -> None:
    done = export(run, "huggingface")
    processor = json.loads((done.folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert "normalised: (x - mean) / std" in str(done)


@pytest.mark.parametrize("target", ["onnx", "torch"])
@pytest.mark.parametrize(
    "kind",  # tracing each takes seconds, so that the others are with the slow tests
    ["image", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("spectrogram", "series", "channels", "tubes"))],
)
def test_a_graph_takes_batches_of_any_size(target: str, kind: str, registry: Registry, tmp_path: Path) -> None:
    tokens = {
        "image": IMAGE,
        "spectrogram": {"mels": 16, "duration": 0.2, "patch": 4, "statistics": "audioset"},
        "series": {"length": 48, "patch": 16},
        "channels": {"size": 12, "patch": 4, "channels": 3},
        "tubes": TUBES,
    }[kind]
    model = model_of(registry, kind, tokens)
    if kind == "series":
        model.tokenizer.fit_statistics([signal(model, 4)])
    done = export(save(model, tmp_path / "run"), target)
    assert done.about["difference"] < 1e-4
    assert done.about["batches"] == [1, 3, 8]
    assert (kind in ("image", "tubes")) is (not done.about["notes"])
    given = signal(model, 5)
    with torch.no_grad():
        expected = model.encoder.features(model.tokens(given))
    if target == "torch":
        found = torch.export.load(done.folder / "encoder.pt2").module()(given)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(done.folder / "encoder.onnx")
        found = torch.from_numpy(session.run(None, {"signal": given.numpy()})[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    with pytest.raises(CheckpointError, match="is a graph"):
        load(done.folder)


@pytest.mark.parametrize(
    ("target", "changes", "said"),
    [
        ("timm", {"encoder": {"positions": "rotary"}}, "rotary"),
        ("timm", VIDEO, "along 2 axes"),
        ("timm", {"name": "channels", "tokens": {"size": 12, "patch": 4, "channels": 3}}, "all channels"),
        ("timm", {"encoder": {"mlp": "swiglu"}}, "gated"),
        ("timm", {"encoder": {"repeat_positions": True}}, "added before every block"),
        ("huggingface", {"encoder": {"positions": "rotary"}}, "rotary"),
        ("huggingface", {"encoder": {"class_token": False}}, "no|class token"),
        ("huggingface", {**VIDEO, "encoder": {"class_token": True, "positions": "interleaved"}}, "no registers"),
        ("huggingface", {**VIDEO, "encoder": {"class_token": False}}, "interleaved"),
    ],
)
def test_what_a_target_cant_express_is_refused_with_the_reason(
    target: str, changes: Any, said: str, registry: Registry, tmp_path: Path
) -> None:
    folder = save(model_of(registry, **changes), tmp_path / "run")
    with pytest.raises(CheckpointError, match=said):
        export(folder, target)
    assert not list(folder.glob("exports/*"))
    assert not list(folder.glob("exports/.*"))


def test_a_tokenizer_that_makes_no_graph_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(load(run).tokenizer)
    whole = kind.tokenize

    def chooses(self: Any, signal: Tensor) -> Any:
        return whole(self, signal if float(signal.sum()) > 0 else -signal)

    monkeypatch.setattr(kind, "tokenize", chooses)
    for target in ("onnx", "torch"):
        with pytest.raises(CheckpointError, match="'image' makes no graph"):
            export(run, target)


def test_an_export_that_computes_something_else_is_removed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write._WRITERS["timm"]

    def wrong(model: Any, folder: Path, registry: Any) -> Any:
        with torch.no_grad():
            model.encoder.norm.bias += 0.01
        written = whole(model, folder, registry)
        with torch.no_grad():
            model.encoder.norm.bias -= 0.01
        return written

    monkeypatch.setattr(write, "_WRITERS", {"timm": wrong})
    with pytest.raises(CheckpointError, match=r"computes something else.*removed"):
        export(run, "timm")
    assert not list((run / "exports").iterdir())
    assert export(run, "timm", tolerance=0.1).about["difference"] == pytest.approx(0.01, abs=1e-5)


def test_what_fails_in_the_other_library_is_told_as_that(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(CheckpointError, match=r"(?s)failed in timm or torch.*no such thing"):
        export(run, "timm")
    assert not list((run / "exports").iterdir())


def test_what_a_killed_export_left_is_taken_away(run: Path) -> None:
    left = run / "exports" / ".timm.123-0123abcd.writing"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half")
    export(run, "timm")
    assert [path.name for path in (run / "exports").iterdir()] == ["timm"]
    with pytest.raises(CheckpointError, match="something in this place"):
        export(run, "timm")


def test_a_missing_library_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"maskedmodel\[onnx\]"):
        export(run, "onnx")


def test_damaged_exports_are_refused(run: Path) -> None:
    folder = export(run, "safetensors").folder
    with pytest.raises(CheckpointError, match="no checkpoints"):
        load(folder, checkpoint=3)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="can't be read"):
        load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "version": 2}))
    with pytest.raises(CheckpointError, match="version 2"):
        load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "model": {"encoder": {"dim": "wide"}}}))
    with pytest.raises(ConfigError, match="dim"):
        load(folder)


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_cli(["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "out")]) == 0
    assert "largest difference  0" in capsys.readouterr().out
    assert run_cli(["export", str(run), "--to", "safetensor"]) == 2
    assert "safetensors" in capsys.readouterr().err
    assert run_cli(["export", str(tmp_path / "none"), "--to", "timm"]) == 2
    assert run_cli(["export", str(run), "--to", "timm", "--checkpoint", "7"]) == 2


def test_a_run_starts_from_an_export(run: Path) -> None:
    from maskedmodel.config.sections import StartSettings
    from maskedmodel.weights.start import start

    folder, model = export(run, "safetensors").folder, load(run)
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    report = start(fresh, StartSettings(weights=str(folder)))
    assert not report.fresh
    assert torch.equal(fresh.encode(signal(model)), model.encode(signal(model)))


def test_a_loaded_encoder_is_a_plain_module(run: Path) -> None:
    model = maskedmodel.load(run)
    given = signal(model)
    expected = model.encode(given)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert torch.equal(other.encode(given), expected)
    whole = Features(model).eval()
    with torch.no_grad():
        program = torch.export.export(whole, (given,))
        torch.testing.assert_close(program.module()(given), whole(given), rtol=0, atol=1e-5)


class Hub:
    """Stands in for huggingface_hub, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def HfApi(self) -> Any:
        return self

    def create_repo(self, **arguments: Any) -> None:
        self.calls.append(("create", arguments))

    def upload_folder(self, **arguments: Any) -> str:
        self.calls.append(("upload", arguments))
        if arguments["repo_id"] == "someone/else":
            raise OSError("403 Forbidden")
        return "the address"


def test_nothing_is_uploaded_unless_asked(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", api)
    export(run, "safetensors")
    assert not api.calls
    done = export(run, "safetensors", out=tmp_path / "one", push="me/model")
    assert done.uploaded == "the address"
    assert [name for name, _ in api.calls] == ["create", "upload"]
    assert api.calls[0][1] == {"repo_id": "me/model", "private": True, "exist_ok": True}
    assert Path(api.calls[1][1]["folder_path"]) == tmp_path / "one"
    export(run, "safetensors", out=tmp_path / "two", push="me/model", public=True)
    assert api.calls[2][1]["private"] is False
    with pytest.raises(CheckpointError, match=r"(?s)couldn't be uploaded.*403"):
        export(run, "safetensors", out=tmp_path / "three", push="someone/else")
    assert load(tmp_path / "three").decoder_loaded  # it stands nevertheless
    with pytest.raises(CheckpointError, match="OWNER/NAME"):
        export(run, "safetensors", out=tmp_path / "four", push="nobody")
    assert not (tmp_path / "four").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"maskedmodel\[hub\]"):
        export(run, "safetensors", out=tmp_path / "five", push="me/model")


def test_the_card_tells_of_the_run_and_of_where_it_began(tmp_path: Path, registry: Registry) -> None:
    from tests.weights.test_start import config_of
    from tests.weights.test_vit import vit

    torch.save(vit(img_size=8, in_chans=1, mlp_ratio=4).state_dict(), tmp_path / "published.pth")
    maskedmodel.import_weights(tmp_path / "published.pth", to=tmp_path / "imported", heads=2)
    config = config_of(tmp_path, start=str(tmp_path / "imported"), evaluate={"pictures": 0, "neighbours": 3})
    config["model"]["encoder"] = {**ENCODER, "positions": "table"}
    maskedmodel.pretrain(config, run=tmp_path / "run", quiet=True)
    config["start"] = str(tmp_path / "run")
    maskedmodel.pretrain(config, run=tmp_path / "again", quiet=True)
    for source in ("imported", "run", "again"):
        done = export(tmp_path / source, "safetensors")
        assert done.about["started_from"]["source"] == "published.pth"
        text = (done.folder / "README.md").read_text()
        assert "CC-BY-NC" in text
        assert str(tmp_path) not in text
        assert "maskedmodel.load('FOLDER')" in text
    assert "2 steps of 4 samples; masked validation loss" in text
    assert "| k-NN | linear |" in text
    assert "- data: digits" in text
    assert "- mask: uniform (ratio 0.75)" in text


@pytest.mark.slow
def test_a_loaded_encoder_compiles_and_goes_through_ddp(run: Path, tmp_path: Path) -> None:
    from torch import distributed

    model = load(run)
    whole, given = Features(model).eval(), signal(model)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(whole)(given), whole(given), rtol=0, atol=1e-5)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(whole)
        parallel(given).sum().backward()
        assert all(p.grad is not None for p in whole.encoder.parameters())
    finally:
        distributed.destroy_process_group()
