from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import maskedmodel_points
import pytest
import torch
from maskedmodel_points.folder import PointsFolder
from maskedmodel_points.shapes import Shapes
from maskedmodel_points.tokenizer import Points
from torch import Tensor, nn

from maskedmodel import Tokens
from maskedmodel.testing import CheckFailed, checks_of, parametrize_checks, run_check


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


class BatchNormed(Points):
    """As Point-MAE has it: what a token becomes then depends on the batch."""

    def make_embed(self, dim: int) -> nn.Module:
        class Embed(nn.Module):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.norm, self.out = nn.BatchNorm1d(width), nn.Linear(width, dim)

            def forward(self, values: Tensor) -> Tensor:
                out: Tensor = self.out(self.norm(values.flatten(0, -2))).view(*values.shape[:-1], dim)
                return out

        return Embed(self.token_width)


class OfTheBatch(Points):
    """Clouds are shrunk by the largest of the batch."""

    def tokenize(self, signal: Tensor) -> Tokens:
        return super().tokenize(signal / signal.abs().nan_to_num(0).amax())


class DrawsAll(Points):
    """What isn't there is drawn at its centre."""

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return super().detokenize(values, replace(like, valid=None))


class InPlace(Points):
    """Centres stand at one place, since all are counted from the first."""

    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, coords=torch.zeros_like(tokens.coords))


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (BatchNormed, "check_embed_and_head", "mixes tokens"),
        (OfTheBatch, "check_samples_independent", "is cut differently"),
        (DrawsAll, "check_left_out", "a token that is left out shows in the picture"),
        (InPlace, "check_layout", "two tokens stand at one place"),
    ],
)
def test_what_breaks_a_rule_is_told_which(broken: type[Points], check: str, said: str) -> None:
    tokenizer = broken(points=64, groups=8, group=6, embed=8)
    (rule,) = [found for found in checks_of(tokenizer) if found.__name__ == check]
    with pytest.raises(CheckFailed, match=said):
        run_check(rule, tokenizer)
    run_check(rule, Points(points=64, groups=8, group=6, embed=8))


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
