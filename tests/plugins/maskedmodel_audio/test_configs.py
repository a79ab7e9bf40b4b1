import pytest

from maskedmodel.config import load_config
from maskedmodel.plugins import load_registry


@pytest.mark.parametrize("name", ["audio-quickstart", "audio-fsdd", "audio-esc10"])
def test_a_config_that_comes_with_the_package_can_be_built(name):
    registry = load_registry()
    config = load_config(name, registry=registry)
    tokenizer = registry.tokenizers[config.tokenizer.name](config.tokenizer)
    assert config.data.sample_rate == config.tokenizer.sample_rate  # nothing else would notice
    assert tokenizer.extents[0] * tokenizer.extents[1] >= 40
