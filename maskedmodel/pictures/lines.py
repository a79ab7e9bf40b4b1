"""Line plots as tensors: one band per variate, drawn for a whole batch without a loop over samples or pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedmodel.pictures.scales import Scale, Scales

# Enlarged by whole pixels up to 640, so no line is blurred on a report's sheet.
_WIDEST, _NARROWEST = 640, 240  # pixels
_MOST_BANDS = 16  # further variates aren't drawn: nobody could tell them apart
_HEIGHT, _LOWEST, _HIGHEST = 320, 28, 96  # pixels: of all bands together if it fits, and of one band
_MARGIN = 0.08  # of a band's height, above and below the highest and lowest value
_THICKNESS = 1.5  # pixels

_PAPER, _RULE = 1.0, 0.88  # grey levels
# Blue, orange, green, red, purple, brown, as matplotlib's cycle has them.
_INKS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75))


def columns_of(steps: int) -> int:
    """Pixel columns of a plot of `steps` time steps: several a step, or several steps a column."""
    if steps > _WIDEST:
        return -(-steps // -(-steps // _WIDEST))
    return steps * max(-(-_NARROWEST // steps), 1)


def bands_of(variates: int) -> tuple[int, int]:
    """How many variates are drawn, and the height of a band in pixels."""
    bands = min(variates, _MOST_BANDS)
    return bands, min(max(_HEIGHT // bands, _LOWEST), _HIGHEST)


def draw_lines(signal: Tensor, like: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] of signals (B, V, T), each band on the scale of its variate in `like`; NaN stays empty."""
    batch, _, steps = signal.shape
    bands, height = bands_of(signal.shape[1])
    signal, like = signal[:, :bands].float(), like[:, :bands].float()
    low = like.nan_to_num(torch.inf).amin(-1, keepdim=True)
    high = like.nan_to_num(-torch.inf).amax(-1, keepdim=True)
    span = high - low
    level = torch.where(span > 1e-12, (signal - low) / span.clamp(min=1e-12), 0.5 + 0 * signal)
    rows = (height - 1) * (_MARGIN + (1 - 2 * _MARGIN) * (1 - level.clamp(-0.08, 1.08)))
    top, bottom = _spans(rows, columns_of(steps))
    pixel = torch.arange(height, device=signal.device).reshape(1, 1, height, 1)
    half = _THICKNESS / 2
    # NaN compares as False, so a gap draws nothing.
    inked = (pixel >= (top - half)[:, :, None]) & (pixel <= (bottom + half)[:, :, None])
    paper = torch.full((height, 1), _PAPER, device=signal.device)
    paper[-1] = _RULE
    inks = torch.tensor(_INKS, device=signal.device)[torch.arange(bands) % len(_INKS)] / 255
    picture = torch.where(inked[:, :, None], inks[None, :, :, None, None], paper)
    return picture.permute(0, 2, 1, 3, 4).reshape(batch, 3, bands * height, -1)


def _spans(rows: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """The highest and lowest row of the line within each column, (B, V, columns) each; NaN where there is none.

    The line joins neighbouring steps; where one of the two is missing only the other is drawn, as a dot.
    """
    steps = rows.shape[-1]
    if columns < steps:
        each = -(-steps // columns)
        # One step over on the right, so that neighbouring columns join.
        padded = torch.cat([rows, rows.new_full((*rows.shape[:2], each * columns + 1 - steps), torch.nan)], -1)
        inside = padded.unfold(-1, each + 1, each)
    else:
        each = columns // steps
        ahead = torch.cat([rows[..., 1:], rows.new_full((*rows.shape[:2], 1), torch.nan)], -1)
        share = torch.arange(each + 1, device=rows.device) / each
        along = rows[..., None] + (ahead - rows)[..., None] * share
        along[..., 0] = rows  # a step stands even where its neighbour is missing
        inside = along.unfold(-1, 2, 1).flatten(2, 3)
    top = inside.nan_to_num(torch.inf).amin(-1)
    bottom = inside.nan_to_num(-torch.inf).amax(-1)
    missing = inside.isnan().all(-1)
    return top.masked_fill(missing, torch.nan), bottom.masked_fill(missing, torch.nan)


def token_pixels(chosen: Tensor, patch: int, columns: int) -> Tensor:
    """(B, H, W) bool: the pixels of `draw_lines` that show chosen tokens (B, V, cells) of `patch` steps alone."""
    batch, variates, cells = chosen.shape
    bands, height = bands_of(variates)
    steps = cells * patch
    each = max(-(-steps // columns), 1)
    first = torch.arange(columns, device=chosen.device) * steps // columns if columns >= steps else None
    if first is None:
        first = torch.arange(columns, device=chosen.device) * each
        last = (first + each - 1).clamp(max=steps - 1)
    else:
        last = first
    wide = chosen[:, :bands, first // patch] & chosen[:, :bands, last // patch]
    return wide[:, :, None].expand(-1, -1, height, -1).reshape(batch, bands * height, columns)


def line_scales(variates: int, steps: int) -> Scales:
    """Time in steps along the bottom, and the number of each variate beside its band."""
    bands, _ = bands_of(variates)
    size = next(size for size in _ROUND if steps / size <= 6)
    across = tuple(((step + 0.5) / steps, str(step)) for step in range(0, steps, size))
    down = tuple(((band + 0.5) / bands, str(band)) for band in range(bands))
    return Scales(Scale("time step", across), Scale("variate", down) if variates > 1 else None)


_ROUND = [int(mantissa * 10**power) for power in range(12) for mantissa in (1, 2, 5)]
