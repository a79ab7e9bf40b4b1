import subprocess
import sys

import maskedmodel_image
from maskedmodel_image.array import Array
from maskedmodel_image.digits import Digits
from maskedmodel_image.folder import ImageFolder
from maskedmodel_image.parquet import Parquet
from maskedmodel_image.tokenizer import ImageTokenizer

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        ImageTokenizer(size=32, patch=8),
        ImageTokenizer(size=(24, 36), patch=(4, 6), channels=5, normalise="measured"),
        ImageTokenizer(size=16, patch=4, channels=1, crop=None),
        Digits,
        ImageFolder,
        Parquet,
        Array,
    ]
)
def test_conformance(check):
    check()


def test_what_the_plugin_provides():
    names = [kind.component_name() for kind in maskedmodel_image.maskedmodel_tokenizers()]
    assert names == ["image"]
    names = [kind.component_name() for kind in maskedmodel_image.maskedmodel_data_sources()]
    assert names == ["digits", "image_folder", "parquet", "array"]


def test_listing_it_loads_no_reader():
    code = (
        "import sys, maskedmodel_image as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources()\n"
        "print(*sorted({'PIL', 'pyarrow', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
