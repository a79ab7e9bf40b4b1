"""The picture and the page of a label curve, made from its results.json."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from maskedmodel.errors import DataError
from maskedmodel.files import replacing
from maskedmodel.report.markup import number, part, section, table, text
from maskedmodel.training.checkpoint import write_text

PICTURE = "label-curve.png"
_ARMS = (("started", "fine-tuned", "#1f5fbf", "o"), ("scratch", "same, from scratch", "#c2410c", "s"))


def write(folder: Path) -> Path:
    """Write label-curve.png and report.html beside results.json; returns the page's path.

    Raises DataError where there is no results.json that can be read, TrainingError where the disk refuses.
    """
    try:
        data = json.loads((folder / "results.json").read_text("utf-8"))
        picture = draw(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("There is no label curve to report on.", where=folder / "results.json", got=error) from error
    with replacing(folder / PICTURE) as file:
        file.write(picture)
    path = folder / "report.html"
    write_text(path, render(data, folder, picture))
    return path


def draw(data: Mapping[str, Any]) -> bytes:
    """The scores over the number of labels, a band of one standard deviation about each, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    counts = [point["count"] for point in data["points"]]
    for arm, name, colour, marker in _ARMS:
        found = [(point["count"], point[arm]) for point in data["points"] if point[arm] is not None]
        if not found:
            continue
        x, mean = [count for count, _ in found], [spread["mean"] for _, spread in found]
        half = [spread["deviation"] or 0.0 for _, spread in found]
        low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
        axes.plot(x, mean, marker=marker, color=colour, label=name)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("labelled training samples")
    axes.set_ylabel(f"{data['score']} on the validation part")
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def render(data: Mapping[str, Any], folder: Path, picture: bytes) -> str:
    """The page."""
    name = folder.resolve().name
    image = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    shown = f'<figure class="picture"><img alt="{text(data["score"])} by number of labels" src="{image}"></figure>'
    headings = ("labels", "fine-tuned", "from scratch", "difference", "95 % interval", "verdict")
    rows = "".join(f"<tr>{_row(point)}</tr>" for point in data["points"])
    sections = [
        section("By number of labels", shown + table(f"{text(data['score'])}, mean over seeds", headings, [rows])),
        section("How these numbers came about", f"<p>{text(data['protocol'], 4000)}</p>"),
        section("Surroundings", _environment(data["environment"])),
    ]
    return Template(part("template.html")).substitute(
        style=part("style.css"),
        title=f"{text(name)} - maskedmodel",
        heading=text(name),
        status=f"{data['seeds']} seeds, {data['steps']:,} steps each.",
        notes="",
        tiles="",
        sections="\n".join(sections),
    )


def _row(point: Mapping[str, Any]) -> str:
    found = point["difference"]
    cells = [_spread(point["started"]), _spread(point["scratch"])]
    if found is None:
        cells += ["-", "-", "-"]
    else:
        student = found["student"]
        interval = "-" if student is None else f"{student[0]:+.3f} to {student[1]:+.3f}"
        cells += [f"{found['mean']:+.3f}", interval, text(found["verdict"])]
    return f'<th scope="row">{point["count"]:,}</th>' + "".join(f"<td>{cell}</td>" for cell in cells)


def _spread(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return "-"
    deviation = spread["deviation"]
    return number(spread["mean"]) + (
        "" if deviation is None else f"<small>standard deviation {number(deviation)}</small>"
    )


def _environment(values: Mapping[str, Any]) -> str:
    rows = [f'<tr><th scope="row">{text(key)}</th><td>{text(value)}</td></tr>' for key, value in values.items()]
    return table("", (), rows)
