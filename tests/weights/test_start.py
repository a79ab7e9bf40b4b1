"""What a run starts from: every tensor accounted for, conversions told, and all or nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import maskedmodel
from maskedmodel import MaskedAutoencoder, load, pretrain
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import StartSettings
from maskedmodel.errors import CheckpointError, ConfigError
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.weights.build import Spec, build
from maskedmodel.weights.runs import save
from maskedmodel.weights.start import StartReport, start

ENCODER = {"dim": 24, "depth": 2, "heads": 2}
DECODER = {"dim": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(strict=True, allow=["image", "masks", "objectives", "microscopy", "timeseries"])


def model_of(
    registry: Registry,
    *,
    tokenizer: dict[str, Any] | None = None,
    name: str = "image",
    objective: str = "patch",
    seed: int = 0,
    **stacks: dict[str, Any],
) -> MaskedAutoencoder:
    tokens = {"size": 12, "patch": 4, "channels": 3} if tokenizer is None else tokenizer
    encoder, decoder = ({**own, **stacks.get(side, {})} for side, own in (("encoder", ENCODER), ("decoder", DECODER)))
    spec = Spec((name, tokens), ("uniform", {}), (objective, {}), encoder, decoder)
    model = build(spec, registry, "a test")
    with seeded(seed), torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def old(registry: Registry) -> MaskedAutoencoder:
    return model_of(registry)


def started(
    new: MaskedAutoencoder, old: MaskedAutoencoder, tmp_path: Path, registry: Registry, **settings: Any
) -> StartReport:
    save(old, tmp_path / "old")
    return start(new, StartSettings(weights=str(tmp_path / "old"), **settings), registry)


def accounted(report: StartReport, new: MaskedAutoencoder) -> None:
    """Each of our tensors is exactly one of loaded, converted and fresh."""
    names = [*report.loaded, *report.converted, *report.fresh]
    own = [name for name in new.state_dict() if name.startswith(("encoder.", "decoder."))]
    assert sorted(names) == sorted(own)


def picture(*shape: int) -> Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(3))


def test_the_same_model_computes_the_same(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    new = model_of(registry, seed=1)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    assert not report.converted
    assert not report.fresh
    signal = picture(3, 12, 12)
    assert torch.equal(new.encode(signal), old.encode(signal))
    mask = old(signal).mask
    assert torch.equal(new(signal, mask).prediction, old(signal, mask).prediction)
    assert "36 loaded" in report.summary() or f"{len(report.loaded)} loaded" in report.summary()


def test_the_encoder_alone_leaves_a_fresh_decoder(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    new = model_of(registry, seed=1, decoder={"dim": 8})
    before = {name: t.clone() for name, t in new.decoder.state_dict().items()}
    report = started(new, old, tmp_path, registry, parts="encoder")
    accounted(report, new)
    assert torch.equal(new.encode(picture(3, 12, 12)), old.encode(picture(3, 12, 12)))
    assert all(torch.equal(before[name], t) for name, t in new.decoder.state_dict().items())
    assert {f"decoder.{name}" for name in before} == set(report.fresh)
    assert any(name.startswith("decoder.") for name in report.left_out)
    assert "the decoder is fresh: as start.parts says" in report.summary()


def test_weights_of_an_encoder_leave_a_fresh_decoder_and_say_so(
    old: MaskedAutoencoder, registry: Registry, tmp_path: Path
) -> None:
    old.decoder_loaded = False
    report = started(model_of(registry, seed=1), old, tmp_path, registry)
    assert "hold an encoder only" in report.summary()
    assert not any(name.startswith("decoder.") for name in report.left_out)


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        ({"encoder": {"depth": 3}}, "encoder.blocks.2", "model.encoder.depth=2"),
        ({"encoder": {"dim": 48}}, r"encoder\.blocks\.0\.mlp\.fc1\.weight: \(96, 24\) where", "model.encoder.dim=24"),
        ({"encoder": {"heads": 4}}, "model.encoder.heads: 2 there, 4 here", "model.encoder.heads=2"),
        ({"encoder": {"mlp_ratio": 2.0}}, "mlp_ratio: 4.0 there", "model.encoder.mlp_ratio=4"),
        ({"encoder": {"mlp": "swiglu", "mlp_ratio": 2.0}}, "mlp: gelu there, swiglu here", "model.encoder.mlp=gelu"),
        ({"encoder": {"positions": "rotary"}}, "positions: sincos there", "model.encoder.positions=sincos"),
        ({"encoder": {"positions": "mlp"}}, "positions: sincos there", "model.encoder.positions=sincos"),
        ({"encoder": {"repeat_positions": True}}, "False there, True here", "model.encoder.repeat_positions=False"),
        ({"decoder": {"depth": 2}}, "decoder.blocks.1", "start.parts=encoder"),
        ({"decoder": {"attention": "cross"}}, "attention: self there", "start.parts=encoder"),
        ({"objective": "fourier"}, None, None),
        ({"tokenizer": {"size": 12, "patch": 4, "channels": 1}}, "3 in a token there, 1 here", "start.channels=repeat"),
    ],
)
def test_another_model_is_refused_with_tensors_and_what_settles_it(
    old: MaskedAutoencoder, registry: Registry, tmp_path: Path, changes: Any, said: str | None, fix: str | None
) -> None:
    new = model_of(registry, seed=1, **changes)
    before = {name: t.clone() for name, t in new.state_dict().items()}
    if said is None:  # a head of the same shape
        report = started(new, old, tmp_path, registry)
        accounted(report, new)
        assert "head was trained for another objective: name patch there, fourier here" in report.summary()
        return
    with pytest.raises(CheckpointError, match=said) as caught:
        started(new, old, tmp_path, registry)
    assert fix in str(caught.value)
    assert "none of them is used" in str(caught.value)
    assert all(torch.equal(before[name], t) for name, t in new.state_dict().items())


def test_another_modality_is_refused(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    new = model_of(registry, name="series", tokenizer={"length": 48, "patch": 16})
    with pytest.raises(CheckpointError, match="of another modality, image along height, width"):
        started(new, old, tmp_path, registry)


def test_values_that_are_not_finite_are_refused(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    with torch.no_grad():
        old.encoder.norm.weight[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.weight: some values aren't finite"):
        started(model_of(registry), old, tmp_path, registry)


def test_another_size_recomputes_fixed_positions(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    new = model_of(registry, tokenizer={"size": (16, 20), "patch": 4, "channels": 3}, seed=1)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    assert not report.converted
    assert "4 x 5 cells, 3 x 3 there" in report.summary()
    signal = picture(3, 16, 20)
    assert torch.equal(new.encode(signal), old.encode(signal))


@pytest.mark.parametrize("positions", ["learned", "table"])
def test_learned_positions_of_another_size_are_those_that_the_old_model_used(
    registry: Registry, tmp_path: Path, positions: str
) -> None:
    both = {"encoder": {"positions": positions}, "decoder": {"positions": positions}}
    old = model_of(registry, **both)
    new = model_of(registry, tokenizer={"size": (16, 20), "patch": 4, "channels": 3}, seed=1, **both)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    assert report.converted
    assert "interpolated" in report.summary()
    signal = picture(3, 16, 20)
    torch.testing.assert_close(new.encode(signal), old.encode(signal), rtol=0, atol=1e-5)


def test_a_network_of_positions_goes_with_any_size(registry: Registry, tmp_path: Path) -> None:
    both = {"encoder": {"positions": "mlp"}, "decoder": {"positions": "mlp"}}
    old = model_of(registry, **both)
    new = model_of(registry, tokenizer={"size": (16, 20), "patch": 4, "channels": 3}, seed=1, **both)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    signal = picture(3, 16, 20)
    assert torch.equal(new.encode(signal), old.encode(signal))


@pytest.mark.parametrize("positions", ["learned", "table", "interleaved"])
def test_a_longer_clip(tmp_path: Path, positions: str) -> None:
    registry = load_registry(strict=True, allow=["video", "masks", "objectives"])
    clip = {"frames": 4, "size": 8, "patch": (2, 4, 4), "channels": 1}
    both: dict[str, Any] = {"encoder": {"positions": positions}, "decoder": {"positions": positions}}
    old = model_of(registry, name="tubes", tokenizer=clip, **both)
    new = model_of(registry, name="tubes", tokenizer={**clip, "frames": 8, "size": (12, 8)}, seed=1, **both)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    assert bool(report.converted) is (positions != "interleaved")
    assert ("raster order, which is another one" in report.summary()) is (positions == "interleaved")
    signal = picture(1, 8, 12, 8)
    torch.testing.assert_close(new.encode(signal), old.encode(signal), rtol=0, atol=1e-5)
    other = model_of(registry, name="tubes", tokenizer={**clip, "patch": (4, 4, 2)}, seed=2, **both)
    report = start(other, StartSettings(weights=str(tmp_path / "old")), registry)
    accounted(report, other)
    assert "patches of 2 x 4 x 4 to 4 x 4 x 2" in report.summary()


def test_fixed_positions_become_a_table(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    new = model_of(registry, encoder={"positions": "table"}, seed=1)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    signal = picture(3, 12, 12)
    torch.testing.assert_close(new.encode(signal), old.encode(signal), rtol=0, atol=1e-6)
    back = model_of(registry, seed=2)
    save(new, tmp_path / "table")
    with pytest.raises(CheckpointError, match="positions: table there, sincos here"):
        start(back, StartSettings(weights=str(tmp_path / "table")), registry)


def test_scrambled_positions_are_not_interpolated(registry: Registry, tmp_path: Path) -> None:
    from maskedmodel.engine.positions import sincos

    tokens = {"size": (12, 8), "patch": 4, "channels": 3}
    old = model_of(registry, tokenizer=tokens, encoder={"positions": "table"})
    coords = torch.cartesian_prod(torch.arange(2), torch.arange(3))  # for a grid of 2 x 3 where it is 3 x 2
    with torch.no_grad():
        old.encoder.places.tables.table.copy_(sincos(coords, 24))
    new = model_of(registry, tokenizer=tokens, encoder={"positions": "table"}, seed=1)
    started(new, old, tmp_path, registry)
    longer = model_of(registry, tokenizer={**tokens, "size": (16, 8)}, encoder={"positions": "table"}, seed=1)
    with pytest.raises(CheckpointError, match="can't be interpolated"):
        start(longer, StartSettings(weights=str(tmp_path / "old")), registry)


def test_larger_patches_of_a_larger_picture_give_the_same_features(
    old: MaskedAutoencoder, registry: Registry, tmp_path: Path
) -> None:
    """FlexiViT: a picture enlarged patch by patch has, token by token, the features that it had."""
    from maskedmodel.weights.convert import TokenLayout, resampled_head

    new = model_of(registry, tokenizer={"size": 18, "patch": 6, "channels": 3}, seed=1)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    assert "pseudo-inverse" in report.converted["encoder.embed.weight"]
    tokens = old.tokens(picture(3, 12, 12))
    small, large = TokenLayout((4, 4), 3), TokenLayout((6, 6), 3)
    values = large.fold(resampled_head(small.unfold(tokens.values), (4, 4), (6, 6)))
    torch.testing.assert_close(
        new.encoder.features(type(tokens)(values, tokens.coords, tokens.axes, tokens.grid)),
        old.encoder.features(tokens),
        rtol=0,
        atol=1e-4,
    )
    # And what is predicted is what was predicted, enlarged.
    latent = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))[:, :16]
    expected = resampled_head(small.unfold(old.decoder.head(latent)), (4, 4), (6, 6))
    torch.testing.assert_close(large.unfold(new.decoder.head(latent)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 5])
def test_channels_are_repeated_and_rescaled(
    old: MaskedAutoencoder, registry: Registry, tmp_path: Path, channels: int
) -> None:
    half = {"size": 12, "patch": 4, "channels": channels, "normalise": "half"}
    new = model_of(registry, tokenizer=half, seed=1)
    report = started(new, old, tmp_path, registry, channels="repeat")
    accounted(report, new)
    assert "repeated and rescaled" in report.summary()
    grey = picture(1, 12, 12)
    torch.testing.assert_close(
        new.encode(grey.expand(-1, channels, -1, -1)), old.encode(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-5
    )


def test_channels_by_number_and_by_name(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    signal = picture(3, 12, 12)
    new = model_of(registry, seed=1)
    report = started(new, old, tmp_path, registry, channels=(2, 1, 0))
    assert "channels from [2, 1, 0]" in report.summary()
    torch.testing.assert_close(new.encode(signal.flip(1)), old.encode(signal), rtol=0, atol=1e-5)
    four = model_of(registry, tokenizer={"size": 12, "patch": 4, "channels": 4}, seed=1)
    settings = StartSettings(weights=str(tmp_path / "old"), channels=("red", None, "green", "blue"))
    start(four, settings, registry)
    wider = torch.cat([signal[:, :1], torch.rand(2, 1, 12, 12), signal[:, 1:]], 1)
    torch.testing.assert_close(four.encode(wider), old.encode(signal), rtol=0, atol=1e-5)
    for wrong, said in ((("red", "pink", None, 0), "'pink'"), ((0, 1, 2, 7), "7"), ((0,), "1 entries for 4")):
        with pytest.raises(CheckpointError, match=said):
            start(four, StartSettings(weights=str(tmp_path / "old"), channels=wrong), registry)


def test_pictures_start_a_model_of_single_channels(old: MaskedAutoencoder, registry: Registry, tmp_path: Path) -> None:
    new = model_of(registry, name="channels", tokenizer={"size": 12, "patch": 4, "channels": 5}, seed=1)
    report = started(new, old, tmp_path, registry, channels="repeat")
    accounted(report, new)
    assert set(report.fresh) == {"encoder.places.channels.weight", "decoder.places.channels.weight"}
    assert "its tokenizer was 'image', this run's is 'channels'" in report.summary()


def test_numbered_channels_start_described_ones(registry: Registry, tmp_path: Path) -> None:
    size: dict[str, Any] = {"size": 12, "patch": 4, "channels": 2}
    by_name = {**size, "identity": "name", "names": ["DNA", "actin"]}
    numbered = model_of(registry, name="channels", tokenizer=size)
    described = model_of(registry, name="channels", tokenizer=by_name, seed=1)
    layers = {
        f"{side}.places.description.fc{n}.{kind}"
        for side in ("encoder", "decoder")
        for n in (1, 2)
        for kind in ("weight", "bias")
    }
    tables = {"encoder.places.channels.weight", "decoder.places.channels.weight"}
    report = started(described, numbered, tmp_path, registry)
    accounted(report, described)
    assert set(report.fresh) == layers
    assert set(report.left_out) == tables
    again = model_of(
        registry, name="channels", tokenizer={**by_name, "names": ["RNA", "ER", "AGP"], "channels": 3}, seed=2
    )
    report = started(again, described, tmp_path / "second", registry)
    accounted(report, again)
    assert not report.fresh
    for name in layers:
        assert torch.equal(again.state_dict()[name], described.state_dict()[name])


@pytest.mark.parametrize(
    ("before", "after", "fresh", "left"),
    [
        ({"class_token": False}, {}, {"encoder.class_token"}, set()),
        ({}, {"class_token": False}, set(), {"encoder.class_token"}),
        ({}, {"registers": 2}, {"encoder.registers"}, set()),
        ({"registers": 3}, {"registers": 2}, set(), set()),
        ({"registers": 1}, {"registers": 2}, set(), set()),
    ],
)
def test_other_class_and_register_tokens(
    registry: Registry, tmp_path: Path, before: Any, after: Any, fresh: set[str], left: set[str]
) -> None:
    old, new = model_of(registry, encoder=before), model_of(registry, encoder=after, seed=1)
    report = started(new, old, tmp_path, registry)
    accounted(report, new)
    assert set(report.fresh) == fresh
    assert {name for name in report.left_out if not name.startswith("tokenizer.")} == left
    if "registers" in before:
        assert torch.equal(new.encoder.registers[:, :1], old.encoder.registers[:, :1])
        assert "encoder.registers" in report.converted


def config_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": {"name": "digits"},
        "tokenizer": {"name": "image", "size": 8, "patch": 4, "channels": 1, "normalise": "half", "crop": None},
        "mask": {"name": "uniform"},
        "model": {"encoder": ENCODER, "decoder": DECODER},
        "train": {"steps": 2, "batch": 4, "validation_samples": 8, "checkpoint_every": 1, "device": "cpu"},
        "evaluate": {"probe": False, "pictures": 0},
        **more,
    }


def test_a_run_starts_tells_keeps_and_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = pretrain(config_of(tmp_path), run=tmp_path / "first", quiet=True)
    config = config_of(tmp_path, start=str(tmp_path / "first"))
    with caplog.at_level(logging.WARNING, "maskedmodel"):
        second = pretrain(config, run=tmp_path / "second", quiet=True)
    told = [record.message for record in caplog.records if "It starts from" in record.message]
    assert len(told) == 1
    assert "0 fresh" in told[0]
    # Its first validation is the other's last: the same weights under the same masks.
    assert second.training.val_loss_start == pytest.approx(first.training.val_loss_end, rel=1e-6)
    kept = json.loads((tmp_path / "second" / "start.json").read_text())
    assert kept["source"] == str(tmp_path / "first")
    assert kept["fresh"] == []
    # Going on needs the start no more, and doesn't start again; another start is another run.
    (tmp_path / "first").rename(tmp_path / "moved")
    config["train"]["steps"] = 3
    caplog.clear()
    assert pretrain(config, run=tmp_path / "second", quiet=True).training.steps == 3
    assert not [record for record in caplog.records if "It starts from" in record.message]
    with pytest.raises(ConfigError, match=r"start\.weights was .*first"):
        pretrain({**config, "start": str(tmp_path / "moved")}, run=tmp_path / "second", quiet=True)
    with pytest.raises(ConfigError, match=r"start\.weights was"):
        pretrain({**config, "start": None}, run=tmp_path / "second", quiet=True)


def test_start_on_the_command_line_and_in_a_config(registry: Registry) -> None:
    def of(config: dict[str, Any], *overrides: str) -> StartSettings:
        return load_config(config, overrides, registry=registry).start

    base = config_of(Path())
    assert of(base) == StartSettings()
    assert of(base, "start=runs/a") == StartSettings(weights="runs/a")
    assert of(base, "start=runs/a", "start.parts=encoder") == StartSettings(weights="runs/a", parts="encoder")
    assert of({**base, "start": "runs/a"}, "start.channels=repeat").channels == "repeat"
    assert of({**base, "start": {"weights": "runs/a", "parts": "encoder"}}, "start=runs/b").weights == "runs/b"
    assert of({**base, "start": "runs/a"}, "start=null") == StartSettings()
    assert of(base, "start=a", "start.channels=[0, green, null]").channels == (0, "green", None)
    with pytest.raises(ConfigError, match=r"start\.weights: is missing"):
        of(base, "start.parts=encoder")
    with pytest.raises(ConfigError, match=r"start\.parts"):
        of(base, "start=runs/a", "start.parts=decoder")


def test_a_missing_start_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        pretrain(config_of(tmp_path, start=str(tmp_path / "nothing")), run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_starts_from_weights_of_another_library(tmp_path: Path) -> None:
    from tests.weights.test_vit import vit

    theirs = vit(img_size=8, in_chans=1, mlp_ratio=4)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    maskedmodel.import_weights(tmp_path / "timm.pth", to=tmp_path / "imported", heads=2)
    config = config_of(tmp_path, start=str(tmp_path / "imported"))
    config["model"]["encoder"] = {**ENCODER, "positions": "table"}
    pretrain(config, run=tmp_path / "run", quiet=True)
    assert load(tmp_path / "run").decoder_loaded
    kept = json.loads((tmp_path / "run" / "start.json").read_text())
    assert "encoder only" in " ".join(kept["notes"])


def test_what_import_must_be_told_sends_there(registry: Registry, tmp_path: Path) -> None:
    from tests.weights.test_vit import vit

    torch.save(vit().state_dict(), tmp_path / "timm.pth")
    with pytest.raises(CheckpointError, match=r"Give heads=.*maskedmodel import"):
        start(model_of(registry), StartSettings(weights=str(tmp_path / "timm.pth")), registry)


def test_doctor_looks_at_the_start(tmp_path: Path) -> None:
    pretrain(config_of(tmp_path), run=tmp_path / "first", quiet=True)
    config = config_of(tmp_path, start=str(tmp_path / "first"))
    assert "0 fresh" in maskedmodel.doctor(config)["start"]
    config["model"]["encoder"] = {**ENCODER, "depth": 3}
    with pytest.raises(CheckpointError, match=r"model\.encoder\.depth=2"):
        maskedmodel.doctor(config)
