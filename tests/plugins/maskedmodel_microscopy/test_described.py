"""Channels known by their names."""

from typing import Any

import pytest
import torch
from maskedmodel_masks.uniform import Uniform
from maskedmodel_microscopy.described import WIDTH, described
from maskedmodel_microscopy.tokenizer import ChannelsTokenizer
from maskedmodel_objectives.patch import Patch
from pydantic import ValidationError
from torch import Tensor

from maskedmodel import MaskedAutoencoder
from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import ConfigError
from maskedmodel.noise import Noise, seeded
from maskedmodel.plugins import load_registry
from maskedmodel.testing import parametrize_checks


def tokenizer(*names: str, **settings: Any) -> ChannelsTokenizer:
    return ChannelsTokenizer(size=8, patch=4, channels=len(names), names=names, identity="name", **settings)


def model_of(own: ChannelsTokenizer) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(dim=24, depth=2, heads=2), decoder=DecoderSettings(dim=16, depth=1, heads=2)
    )
    with seeded(0):
        return MaskedAutoencoder(own, Uniform(ratio=0.5), Patch(), settings)


def fields(*names: str) -> Tensor:
    return torch.randn(3, len(names), 8, 8, generator=torch.Generator().manual_seed(0))


@parametrize_checks([tokenizer("DNA", "actin", "tubulin"), tokenizer("DNA", "actin", eval_size=16, standardise="none")])
def test_conformance(check: Any) -> None:
    check()


def test_names_spelt_alike_are_near_and_marks_do_not_count() -> None:
    rows = described(["Alexa 488", "Alexa 568", "brightfield", "alexa-488", "DAPI", "Hoechst"])
    assert rows.shape == (6, WIDTH)
    torch.testing.assert_close(rows.square().mean(1), torch.ones(6))
    near = rows @ rows.T / WIDTH
    assert torch.equal(rows[0], rows[3])
    assert near[0, 1] > 0.5 > near[0, 2]
    assert near[4, 5] < 0.5  # they both bind DNA, and nothing says so


def test_the_description_of_a_name_is_the_same_for_ever() -> None:
    """A run's weights rest on it: on no machine and in no version may it change."""
    sums = torch.zeros(WIDTH)
    for place, sum_of_signs in {1: -1, 3: 2, 6: -1, 9: -1, 10: 1, 12: 1, 21: -1, 24: 1, 26: -1}.items():
        sums[place] = sum_of_signs
    torch.testing.assert_close(described(["DNA"])[0], sums / sums.square().mean().sqrt())


def test_the_order_of_names_is_of_no_account_and_new_names_go_through() -> None:
    model, other = model_of(tokenizer("DNA", "actin", "tubulin")), model_of(tokenizer("tubulin", "DNA", "actin"))
    other.load_state_dict(model.state_dict())
    x = fields("DNA", "actin", "tubulin")
    torch.testing.assert_close(other.embed(x[:, [2, 0, 1]]), model.embed(x), rtol=1e-5, atol=1e-6)
    fresh = model_of(tokenizer("lipids", "RNA", "ER", "Golgi"))
    fresh.load_state_dict(model.state_dict())
    assert torch.isfinite(fresh.embed(fields("a", "b", "c", "d"))).all()


def test_absent_channels_carry_their_names_along() -> None:
    own = tokenizer("DNA", "actin", "tubulin")
    model, x = model_of(own), fields("DNA", "actin", "tubulin")
    x[0, 0] = x[1, 1] = x[1, 2] = torch.nan
    whole = model.embed(x)
    tokens = own.tokenize(x)
    assert tokens.channel_features is not None
    assert tokens.channel_features.shape == (3, tokens.length, WIDTH)
    for row, present in ((0, [1, 2]), (1, [0])):
        alone = model_of(tokenizer(*(own.settings.names[slot] for slot in present)))
        alone.load_state_dict(model.state_dict())
        torch.testing.assert_close(alone.embed(x[row : row + 1, present]), whole[row : row + 1], rtol=1e-5, atol=1e-6)
    mask = model.scheduler.sample(tokens, 0.0, Noise.of(range(3)))
    assert torch.isfinite(model(tokens, mask).loss)


def test_slots_without_a_name_are_alike() -> None:
    own = tokenizer("DNA", unknown_channels="anonymous")
    tokens = own.tokenize(fields("a", "b", "c"))
    assert tokens.channel_features is not None
    assert (tokens.channel_features[4:] == 0).all()
    assert (tokens.channel_features[:4] == described(["DNA"])).all()


def test_by_default_channels_are_numbered() -> None:
    own = ChannelsTokenizer(size=8, patch=4, channels=2)
    assert (own.channel_count, own.channel_features) == (2, 0)
    assert own.tokenize(fields("a", "b")).channel_features is None
    with pytest.raises(ValidationError, match="a name for each of 3"):
        ChannelsTokenizer(size=8, patch=4, channels=3, names=("DNA",), identity="name")


def test_other_names_in_the_data_are_refused() -> None:
    registry = load_registry()
    names = "tokenizer.names=[haematoxylin, DAB, rest]"
    right = load_config("microscopy-quickstart", ["tokenizer.identity=name", names], registry=registry)
    assert build_components(right, registry).tokenizer.channel_features == WIDTH
    turned = "tokenizer.names=[DAB, haematoxylin, rest]"
    wrong = load_config("microscopy-quickstart", ["tokenizer.identity=name", turned], registry=registry)
    with pytest.raises(ConfigError, match="other names") as error:
        build_components(wrong, registry)
    assert "haematoxylin, DAB, rest" in str(error.value)
