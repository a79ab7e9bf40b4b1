import subprocess
import sys

import maskedmodel_timeseries
from maskedmodel_timeseries.horizon import Horizon
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.seasonal import Seasonal
from maskedmodel_timeseries.series import SeriesTokenizer
from maskedmodel_timeseries.windows import Csv, ParquetTable

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        SeriesTokenizer(length=48, patch=8, variates=2),
        SeriesTokenizer(floor=0, length=96, patch=8, variates=3, horizon=32),
        SeriesTokenizer(floor=0, length=64, patch=4, normalise="none"),
        RasterTokenizer(size=(16, 32), patch=(8, 4), period=7, horizon=14),
        Horizon(ratio=0.75, lowest=0.2, longest=0.5),
        Seasonal(length=64, train_samples=128, val_samples=32, missing=0.2),
        Csv,
        ParquetTable,
    ]
)
def test_conformance(check):
    check()


def test_what_the_plugin_provides():
    own = maskedmodel_timeseries
    names = [
        [kind.component_name() for kind in hook()]
        for hook in (own.maskedmodel_tokenizers, own.maskedmodel_mask_schedulers, own.maskedmodel_data_sources)
    ]
    assert names == [["series", "raster"], ["horizon"], ["seasonal", "csv", "table"]]


def test_listing_it_loads_no_reader():
    code = (
        "import sys, maskedmodel_timeseries as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources(), own.maskedmodel_mask_schedulers()\n"
        "print(*sorted({'pandas', 'pyarrow', 'matplotlib', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
