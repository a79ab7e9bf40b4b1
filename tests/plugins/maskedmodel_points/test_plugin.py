from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import maskedmodel_points
from maskedmodel_points.folder import PointsFolder
from maskedmodel_points.shapes import Shapes
from maskedmodel_points.tokenizer import Points

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        Points(points=64, groups=8, group=6, embed=8),
        Points(points=40, groups=5, group=3, features=2, normalise="none", embed=8, shift=0),
        Points(points=32, groups=4, group=40, turn="any", cell=1.0, embed=8),
        Shapes(train_samples=32, val_samples=16, fewest=16, most=40),
        PointsFolder,
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_what_the_plugin_provides() -> None:
    names = [kind.component_name() for kind in maskedmodel_points.maskedmodel_tokenizers()]
    assert names == ["points"]
    names = [kind.component_name() for kind in maskedmodel_points.maskedmodel_data_sources()]
    assert names == ["shapes", "points_folder"]


def test_listing_it_loads_no_reader() -> None:
    code = (
        "import sys, maskedmodel_points as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources()\n"
        "print(*sorted({'PIL', 'trimesh', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
