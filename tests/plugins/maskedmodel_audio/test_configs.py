import pytest

from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import load_registry


@pytest.mark.parametrize("name", ["audio-quickstart", "audio-fsdd", "audio-esc10", "compare-fsdd"])
def test_a_config_that_comes_with_the_package_can_be_built(name):
    registry = load_registry()
    config = load_config(name, registry=registry)
    tokenizer = registry.tokenizers[config.tokenizer.name](config.tokenizer)
    assert config.data.sample_rate == config.tokenizer.sample_rate
    assert tokenizer.extents[0] * tokenizer.extents[1] >= 40


def test_waveforms_of_another_rate_are_refused():
    registry = load_registry()
    config = load_config("audio-quickstart", ["data.sample_rate=16000"], registry=registry)
    with pytest.raises(ConfigError, match="another sample_rate") as caught:
        build_components(config, registry)
    assert caught.value.where == "data.sample_rate, tokenizer.sample_rate"
    assert "Set data.sample_rate=8000, or tokenizer.sample_rate=16000." in str(caught.value)
