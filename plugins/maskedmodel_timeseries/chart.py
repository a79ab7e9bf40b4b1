"""The picture of a forecast: history, forecast, and what came where it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel.errors import DataError
from maskedmodel.sources import replacing

_MOST = 8  # variates, one below the other
_PAST, _TESTED, _FUTURE = "#404040", "#1f77b4", "#d62728"
Rows = NDArray[np.float64]


def draw_chart(
    path: Path,
    *,
    title: str,
    names: tuple[str, ...],
    times: Any,
    values: Rows,
    past: Rows | None,
    future: Rows,
    future_times: Any,
) -> Path:
    """Write a PNG or SVG with one plot per variate (the first 8), whole or not at all.

    values   (V, T) the last rows of the table, NaN where missing, at `times` (T,).
    past     (V, H) the forecast of the last H of those rows, made from what came before them; None: isn't drawn.
    future   (V, F) the forecast of what comes after, at `future_times`.

    Raises DataError on another suffix, and where the disk refuses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_suffix(path, (".png", ".svg"), "The picture")
    shown = min(len(names), _MOST)
    figure = Figure(figsize=(11, 1.1 + 1.7 * shown), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    for row, axis in enumerate(axes):
        axis.plot(times, values[row], color=_PAST, linewidth=1.1, label="data")
        if past is not None:
            steps = past.shape[1]
            axis.axvspan(times[-steps], times[-1], color="#f2f4f7", zorder=0)
            axis.plot(times[-steps:], past[row], color=_TESTED, linewidth=1.3, label="forecast of data not shown to it")
        axis.plot(future_times, future[row], color=_FUTURE, linewidth=1.3, label="forecast of what comes next")
        axis.set_ylabel(names[row], fontsize=9)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.01)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    more = f"; {len(names) - shown} more variates aren't shown" if len(names) > shown else ""
    figure.suptitle(title + more, fontsize=11, x=0.01, ha="left")
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    written(path, lambda file: figure.savefig(file, format=path.suffix.lower()[1:]), "picture")
    return path


def check_suffix(path: Path, known: tuple[str, ...], what: str) -> None:
    """Raises DataError unless the path ends in one of the suffixes."""
    if path.suffix.lower() not in known:
        raise DataError(
            f"{what} can't be written as a file of this kind.",
            where=path,
            expected=", ".join(known),
            got=path.suffix or "no suffix",
        )


def written(path: Path, write: Any, what: str) -> None:
    """Have `write` fill a file that takes the place of `path` only when it is whole. Raises DataError."""
    try:
        with replacing(path) as file:
            write(file)
    except OSError as error:
        raise DataError(
            f"The {what} can't be written.",
            where=path,
            got=error.strerror or error,
            fix="Name a folder that exists, may be written to and has room.",
        ) from error
