from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import maskedmodel_video
from maskedmodel_video.digits import MovingDigits
from maskedmodel_video.folder import VideoFolder
from maskedmodel_video.tokenizer import TubesTokenizer

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        TubesTokenizer(frames=4, size=16, patch=(2, 8, 8)),
        TubesTokenizer(frames=6, size=(12, 8), patch=(3, 4, 2), channels=1, stride=2, flip=True),
        TubesTokenizer(frames=2, size=8, patch=(1, 4, 4), normalise="imagenet", crop=None),
        MovingDigits(train_samples=40, val_samples=20),
        MovingDigits(train_samples=40, val_samples=20, label="direction"),
        VideoFolder,
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_what_the_plugin_provides() -> None:
    names = [kind.component_name() for kind in maskedmodel_video.maskedmodel_tokenizers()]
    assert names == ["tubes"]
    names = [kind.component_name() for kind in maskedmodel_video.maskedmodel_data_sources()]
    assert names == ["moving_digits", "video_folder"]


def test_listing_it_loads_no_reader() -> None:
    code = (
        "import sys, maskedmodel_video as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources()\n"
        "print(*sorted({'PIL', 'av', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
