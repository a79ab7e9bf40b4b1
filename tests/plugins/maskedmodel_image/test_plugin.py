import subprocess
import sys

import maskedmodel_image


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
