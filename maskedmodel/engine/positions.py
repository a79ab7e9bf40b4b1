"""Positions as functions of coordinates: any number of axes, any extents, no interpolation in a plugin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskedmodel.errors import ShapeError


def _frequencies(count: int, device: torch.device) -> Tensor:
    """10000^(-k / count), k = 0..count-1, in float64 as the MAE reference computes them."""
    return 10000.0 ** -(torch.arange(count, device=device, dtype=torch.float64) / max(count, 1))


def sincos(coords: Tensor, dim: int) -> Tensor:
    """Fixed sine-cosine positions, coords (..., A) to (..., dim) float32.

    The width is shared out evenly over the axes, last axis first; each share is [sines | cosines]. For two axes this is
    the table of MAE (He et al. 2021), whose first half encodes the column. Where the width doesn't divide, the
    rest stays zero.
    """
    axes = coords.shape[-1]
    count = dim // (2 * axes)
    angles = coords.double().flip(-1)[..., None] * _frequencies(count, coords.device)
    table = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2).float()
    return nn.functional.pad(table, (0, dim - table.shape[-1]))


def interleaved(coords: Tensor, grid: Sequence[int], dim: int) -> Tensor:
    """Fixed positions along the raster order of a grid, coords (..., A) in cells to (..., dim) float32.

    A token has one number, its place in raster order, whatever the number of axes; sine and cosine take turns, at the
    speed 10000^(-2 floor(j / 2) / dim) in column j. This is the table of VideoMAE (Tong et al. 2022), computed in
    float64 as there. It doesn't know which tokens are neighbours across a row or across time.
    """
    place = torch.zeros(coords.shape[:-1], dtype=torch.float64, device=coords.device)
    for axis, extent in enumerate(grid):
        place = place * extent + coords[..., axis].double()
    column = torch.arange(dim, device=coords.device)
    angles = place[..., None] * 10000.0 ** -(2 * (column // 2).double() / dim)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos()).float()


def rotary(coords: Tensor, head_dim: int) -> Tensor:
    """Angles (..., head_dim / 2) float32 by which pairs of a query's and a key's values are turned.

    Rotary positions (Su et al. 2021) along several axes: the pairs are shared out evenly, the rest isn't turned.
    """
    pairs = head_dim // 2
    count = pairs // coords.shape[-1]
    angles = (coords.double()[..., None] * _frequencies(count, coords.device)).flatten(-2).float()
    return nn.functional.pad(angles, (0, pairs - angles.shape[-1]))


class AxisTables(nn.Module):
    """Learned positions: one table per axis, added up. Another grid reads the tables by linear interpolation."""

    def __init__(self, dim: int, extents: Sequence[int]) -> None:
        super().__init__()
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(extent, dim).normal_(std=0.02)) for extent in extents)

    def forward(self, coords: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        """coords (..., A) to (..., D)."""
        total: Tensor | None = None
        for axis, table in enumerate(self.tables):
            trained = table.shape[0]
            extent = grid[axis] if grid is not None else trained
            place = ((coords[..., axis].float() + 0.5) * (trained / extent) - 0.5).clamp(0, trained - 1)
            low = place.long().clamp(max=max(trained - 2, 0))
            weight = (place - low)[..., None].to(table.dtype)
            rows = torch.lerp(table[low], table[(low + 1).clamp(max=trained - 1)], weight)
            total = rows if total is None else total + rows
        assert total is not None
        return total


class CellTable(nn.Module):
    """Learned positions: one vector per cell of the grid, in raster order, as ViT, DINO and AudioMAE have them.

    Another grid reads the table as `resampled` gives it; between cells, the cell that a coordinate falls in counts.
    """

    def __init__(self, dim: int, extents: Sequence[int]) -> None:
        super().__init__()
        self.extents = tuple(extents)
        self.table = nn.Parameter(torch.empty(math.prod(extents), dim).normal_(std=0.02))

    def forward(self, coords: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        """coords (..., A) to (..., D)."""
        grid = self.extents if grid is None else grid
        table = self.table if grid == self.extents else resampled(self.table, self.extents, grid)
        place = torch.zeros(coords.shape[:-1], dtype=torch.long, device=coords.device)
        for axis, extent in enumerate(grid):
            place = place * extent + coords[..., axis].long().clamp(0, extent - 1)
        return nn.functional.embedding(place, table)


def resampled(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """A table (cells, D) of the grid `old` for the grid `new`: bicubic for two axes, else linear.

    Centres of cells are aligned, as in DINOv2 and timm. Raises ShapeError for more than three axes.
    """
    modes = {1: "linear", 2: "bicubic", 3: "trilinear"}
    if len(old) not in modes:
        raise ShapeError("A table of positions is interpolated along up to three axes.", got=f"{len(old)} axes")
    picture = table.T.reshape(1, table.shape[1], *old)
    picture = nn.functional.interpolate(picture, tuple(new), mode=modes[len(old)], align_corners=False)
    return picture[0].flatten(1).T


class NumbersMlp(nn.Module):
    """Two linear layers with the exact GELU between them, of numbers that say where a token or what a channel is.

    In float32 under autocast: bfloat16 has three digits, which are few for a place or a wavelength.
    """

    def __init__(self, numbers: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(numbers, hidden), nn.Linear(hidden, dim)

    def forward(self, numbers: Tensor) -> Tensor:
        """(..., N) to (..., D)."""
        with torch.autocast(numbers.device.type, enabled=False):
            table: Tensor = self.fc2(nn.functional.gelu(self.fc1(numbers.to(self.fc1.weight.dtype))))
        return table


class CoordinateMlp(NumbersMlp):
    """Learned positions: of the coordinates, which need no grid (Point-MAE, Pang 2022)."""

    def __init__(self, dim: int, axes: int) -> None:
        super().__init__(axes, 128, dim)  # as in Point-MAE, whatever the width of the tokens


class Description(NumbersMlp):
    """A vector of what is known of a channel."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__(features, dim, dim)

    def forward(self, numbers: Tensor | None) -> Tensor:
        """(..., F) to (..., D). Raises ShapeError on tokens whose channels aren't described, or by other values."""
        width = self.fc1.in_features
        if numbers is None or numbers.shape[-1] != width:
            raise ShapeError(
                "This model knows channels by what describes them, and these tokens don't say it.",
                where="Tokens.channel_features",
                expected=f"(L, {width}) or (B, L, {width})",
                got=None if numbers is None else tuple(numbers.shape),
            )
        return super().forward(numbers)


class PositionEmbedding(nn.Module):
    """What is added to a token for where it is: its position, and its channel where tokens carry or describe one."""

    def __init__(
        self,
        kind: str,
        dim: int,
        heads: int,
        extents: Sequence[int] | None,
        channel_count: int,
        axes: int,
        channel_features: int = 0,
    ) -> None:
        super().__init__()
        self.kind, self.dim, self.head_dim = kind, dim, dim // heads
        if kind == "sincos" and dim < 2 * axes:
            raise ShapeError("The width is too small for the positions.", expected=f"at least {2 * axes}", got=dim)
        if kind in ("learned", "table", "interleaved") and extents is None:
            raise _no_grid(kind, "this tokenizer has")
        if kind == "learned":
            assert extents is not None
            self.tables: AxisTables | CellTable = AxisTables(dim, extents)
        if kind == "table":
            assert extents is not None
            self.tables = CellTable(dim, extents)
        if kind == "mlp":
            self.mlp = CoordinateMlp(dim, axes)
        self.channels = nn.Embedding(channel_count, dim) if channel_count else None
        if self.channels is not None:
            nn.init.normal_(self.channels.weight, std=0.02)
        self.description = Description(channel_features, dim) if channel_features else None

    def forward(
        self,
        coords: Tensor,
        grid: tuple[int, ...] | None,
        channel: Tensor | None,
        channel_features: Tensor | None = None,
    ) -> Tensor:
        """(L, D), or (B, L, D) where coords, channels or their descriptions differ per sample."""
        table = self.positions(coords, grid)
        if self.channels is not None and channel is not None:
            known = self.channels.num_embeddings
            own = self.channels(channel.clamp(max=known - 1))
            table = table + own.masked_fill((channel >= known)[..., None], 0)  # a channel never met in training
        if self.description is not None:
            table = table + self.description(channel_features)
        return table

    def positions(self, coords: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        """(L, D), or (B, L, D) where coords differ per sample: the position alone."""
        if self.kind == "sincos":
            return sincos(coords, self.dim)
        if self.kind == "interleaved":
            if grid is None:
                raise _no_grid(self.kind, "these tokens have")
            return interleaved(coords, grid, self.dim)
        if self.kind in ("learned", "table"):
            return self.tables(coords, grid)  # type: ignore[no-any-return]
        if self.kind == "mlp":
            return self.mlp(coords)  # type: ignore[no-any-return]
        return coords.new_zeros((*coords.shape[:-1], self.dim), dtype=torch.float32)

    def angles(self, coords: Tensor) -> Tensor | None:
        """Rotary angles (L, d/2) or (B, L, d/2), or None where positions are added instead."""
        return rotary(coords, self.head_dim) if self.kind == "rotary" else None


def _no_grid(kind: str, whose: str) -> ShapeError:
    return ShapeError(
        f"{kind.capitalize()} positions need a grid, and {whose} none.", fix="Use sincos, mlp or rotary positions."
    )


def gather_tokens(table: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` (B, K) of a table shared by the batch (L, D) or per sample (B, L, D), as (B, K, D)."""
    if table.dim() == 2:
        return nn.functional.embedding(ids, table)  # its backward adds rows up in a fixed order, unlike indexing
    return table.gather(1, ids[..., None].expand(-1, -1, table.shape[-1]))
