from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from maskedmodel.engine.positions import AxisTables, PositionEmbedding, gather_tokens, interleaved, rotary, sincos
from maskedmodel.errors import ShapeError
from maskedmodel.noise import seeded


def raster(*extents: int) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(n) for n in extents)).reshape(-1, len(extents))


def published(rows: int, columns: int, dim: int) -> np.ndarray:
    """MAE's table, value by value: the first half encodes the column, the second the row, sines before cosines."""
    quarter = dim // 4
    table = np.empty((rows * columns, dim))
    for token in range(rows * columns):
        row, column = divmod(token, columns)
        for k in range(quarter):
            speed = 1 / 10000 ** (k / quarter)
            table[token, k] = np.sin(column * speed)
            table[token, quarter + k] = np.cos(column * speed)
            table[token, 2 * quarter + k] = np.sin(row * speed)
            table[token, 3 * quarter + k] = np.cos(row * speed)
    return table


@pytest.mark.parametrize(("rows", "columns", "dim"), [(14, 14, 64), (3, 7, 24), (1, 1, 4)])
def test_sincos_is_the_table_of_mae(rows: int, columns: int, dim: int) -> None:
    table = sincos(raster(rows, columns), dim)
    assert table.dtype == torch.float32
    np.testing.assert_allclose(table.numpy(), published(rows, columns, dim), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("axes", "dim"), [(1, 8), (1, 9), (2, 10), (3, 12), (3, 16), (4, 24)])
def test_sincos_tells_all_positions_apart_in_any_number_of_axes(axes: int, dim: int) -> None:
    table = sincos(raster(*[3] * axes), dim)
    assert table.shape == (3**axes, dim)
    assert float(torch.pdist(table).min()) > 0.05
    used = dim // (2 * axes) * 2 * axes
    assert not table[:, used:].any()


def test_sincos_of_one_axis_is_the_transformers_own() -> None:
    place = torch.arange(50.0, dtype=torch.float64)[:, None]
    speed = 10000.0 ** -(torch.arange(4) / 4)
    expected = torch.cat([(place * speed).sin(), (place * speed).cos()], 1)
    torch.testing.assert_close(sincos(raster(50), 8), expected.float())


def test_sincos_between_grid_cells_and_per_sample() -> None:
    coords = torch.rand(2, 5, 2)
    assert torch.equal(sincos(coords, 8)[1], sincos(coords[1], 8))


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    from maskedmodel.engine.layers import apply_rotary

    coords = raster(4, 5)
    angles = rotary(coords, 12)
    assert angles.shape == (20, 6)
    query, key = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)).expand(20, 2, 12).permute(1, 0, 2)
    scores = apply_rotary(query[None, None], angles)[0, 0] @ apply_rotary(key[None, None], angles)[0, 0].T
    found: dict[tuple[int, ...], float] = {}
    for one in range(20):
        for other in range(20):
            apart = tuple((coords[one] - coords[other]).tolist())
            assert found.setdefault(apart, float(scores[one, other])) == pytest.approx(
                float(scores[one, other]), abs=1e-5
            )
    assert len({round(score, 3) for score in found.values()}) > len(found) // 2


def test_rotary_turns_what_it_can_share_out() -> None:
    angles = rotary(raster(2, 2, 2), 8)
    assert angles.shape == (8, 4)
    assert not angles[:, 3:].any()
    assert torch.equal(angles[-1, :3], torch.ones(3))


def tables(*extents: int) -> AxisTables:
    with seeded(0):
        return AxisTables(6, extents)


def test_learned_tables_are_read_as_they_are_on_the_grid_they_were_made_for() -> None:
    learned = tables(3, 4)
    rows, columns = learned.tables
    expected = (rows[:, None] + columns[None]).flatten(0, 1)
    assert torch.equal(learned(raster(3, 4), (3, 4)), expected)
    assert torch.equal(learned(raster(3, 4), None), expected)


def test_learned_tables_stretch_over_another_grid() -> None:
    """Half-way between cells lies their mean, beyond the ends the end, as images are resized."""
    learned = tables(4)
    (table,) = learned.tables
    finer, coarser = learned(raster(8), (8,)), learned(raster(2), (2,))
    torch.testing.assert_close(finer[0], table[0])
    torch.testing.assert_close(finer[1], 0.75 * table[0] + 0.25 * table[1])
    torch.testing.assert_close(finer[-1], table[-1])
    torch.testing.assert_close(coarser, torch.stack([(table[0] + table[1]) / 2, (table[2] + table[3]) / 2]))


def test_learned_tables_of_one_entry() -> None:
    assert tables(1)(raster(5), (5,)).shape == (5, 6)


def test_places_add_a_channel_where_tokens_carry_one() -> None:
    with seeded(0):
        places = PositionEmbedding("sincos", 8, 2, (3,), 4, 1)
    assert places.channels is not None
    table = places(raster(3), (3,), torch.tensor([3, 0, 3]))
    torch.testing.assert_close(table - sincos(raster(3), 8), places.channels.weight[[3, 0, 3]])
    assert torch.equal(places(raster(3), (3,), None), sincos(raster(3), 8))
    assert places(raster(3), (3,), torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 3, 8)


def test_rotary_places_add_nothing() -> None:
    places = PositionEmbedding("rotary", 8, 2, (3,), 0, 1)
    assert not places(raster(3), (3,), None).any()
    angles = places.angles(raster(3))
    assert angles is not None
    assert torch.equal(angles, rotary(raster(3), 4))
    assert PositionEmbedding("sincos", 8, 2, (3,), 0, 1).angles(raster(3)) is None


def test_mlp_places_are_two_layers_of_the_coordinates_on_any_grid_or_none() -> None:
    with seeded(0):
        places = PositionEmbedding("mlp", 6, 2, None, 0, 3)
    coords = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    first, second = places.mlp.fc1, places.mlp.fc2
    x = coords.double().numpy() @ first.weight.detach().double().numpy().T + first.bias.detach().numpy()
    gelu = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    expected = gelu @ second.weight.detach().double().numpy().T + second.bias.detach().numpy()
    got = places(coords, None, None)
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=1e-6)
    assert torch.equal(places(coords[1], None, None), got[1])
    assert places.angles(coords) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(places(coords, None, None), got), "bfloat16 has three digits for a place"
    assert places.bfloat16()(raster(2, 2, 2), (2, 2, 2), None).dtype == torch.bfloat16


def test_what_cannot_be_placed_is_refused() -> None:
    with pytest.raises(ShapeError, match="too small for the positions"):
        PositionEmbedding("sincos", 4, 1, (3, 3, 3), 0, 3)
    with pytest.raises(ShapeError, match="need a grid"):
        PositionEmbedding("learned", 8, 1, None, 0, 1)


def test_pick_takes_rows_of_a_shared_or_of_an_own_table() -> None:
    ids = torch.tensor([[2, 0], [1, 1]])
    shared, own = torch.randn(3, 4).requires_grad_(), torch.randn(2, 3, 4).requires_grad_()
    assert torch.equal(gather_tokens(shared, ids), torch.stack([shared[[2, 0]], shared[[1, 1]]]))
    assert torch.equal(gather_tokens(own, ids), torch.stack([own[0, [2, 0]], own[1, [1, 1]]]))
    gather_tokens(shared, ids).sum().backward()
    assert shared.grad is not None
    assert shared.grad[:, 0].tolist() == [1, 2, 1]


def videomae_table(length: int, dim: int) -> np.ndarray:
    """VideoMAE's table, value by value: even columns are sines, odd ones cosines of the same angle."""
    table = np.empty((length, dim))
    for place in range(length):
        for column in range(dim):
            angle = place / 10000 ** (2 * (column // 2) / dim)
            table[place, column] = np.cos(angle) if column % 2 else np.sin(angle)
    return table


@pytest.mark.parametrize(("extents", "dim"), [((8, 14, 14), 32), ((3, 2, 5), 7), ((6,), 4), ((1, 1), 2)])
def test_interleaved_is_the_table_of_videomae(extents: tuple[int, ...], dim: int) -> None:
    table = interleaved(raster(*extents), extents, dim)
    assert table.dtype == torch.float32
    np.testing.assert_allclose(table.numpy(), videomae_table(len(table), dim), rtol=0, atol=1e-6)


def test_interleaved_is_what_transformers_computes() -> None:
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    assert torch.equal(interleaved(raster(2, 3, 4), (2, 3, 4), 24), get_sinusoid_encoding_table(24, 24)[0])


def test_interleaved_follows_coordinates_not_the_order_they_come_in() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    whole = interleaved(raster(3, 4), (3, 4), 8)
    assert torch.equal(interleaved(raster(3, 4)[order], (3, 4), 8), whole[order])
    assert torch.equal(interleaved(raster(3, 4).expand(2, -1, -1), (3, 4), 8)[1], whole)


def test_interleaved_places_need_a_grid() -> None:
    places = PositionEmbedding("interleaved", 8, 1, (3, 4), 0, 2)
    assert torch.equal(places(raster(3, 4), (3, 4), None), interleaved(raster(3, 4), (3, 4), 8))
    assert places.angles(raster(3, 4)) is None
    with pytest.raises(ShapeError, match="Interleaved positions need a grid, and these tokens have none"):
        places(raster(3, 4), None, None)
    with pytest.raises(ShapeError, match="Interleaved positions need a grid, and this tokenizer has none"):
        PositionEmbedding("interleaved", 8, 1, None, 0, 2)
