import subprocess
import sys
from collections.abc import Callable

import maskedmodel_microscopy
from maskedmodel_microscopy.stains import Stains
from maskedmodel_microscopy.tiff_folder import TiffFolder
from maskedmodel_microscopy.tokenizer import ChannelsTokenizer

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        ChannelsTokenizer(size=32, patch=8, channels=3),
        ChannelsTokenizer(size=(16, 24), patch=(4, 6), channels=5, standardise="none", crop=False),
        ChannelsTokenizer(size=16, patch=8, channels=2, turn=False, names=("DNA", "actin"), eval_size=24),
        Stains(train_samples=40, val_samples=20),
        TiffFolder,
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_what_the_plugin_provides() -> None:
    names = [kind.component_name() for kind in maskedmodel_microscopy.maskedmodel_tokenizers()]
    assert names == ["channels"]
    names = [kind.component_name() for kind in maskedmodel_microscopy.maskedmodel_data_sources()]
    assert names == ["stains", "tiff_folder"]


def test_listing_it_loads_no_reader() -> None:
    code = (
        "import sys, maskedmodel_microscopy as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources()\n"
        "print(*sorted({'tifffile', 'skimage', 'scipy', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
