"""The drawn parts of a comparison's page: curves, cost against quality, masks, reconstructions."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskedmodel.report.charts import Series, legend, line_chart
from maskedmodel.report.markup import text

_COLOURS = 8
_ROOM = 6_000_000  # bytes of pictures


def known(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The metrics that any arm has."""
    return [m for m in data["metrics"] if any(m["key"] in arm["summary"] for arm in data["arms"])]


def judged(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those that verdicts are about."""
    return [m for m in known(data) if m["better"]]


def _colour(place: int) -> int:
    return place % _COLOURS + 1


def curves(data: Mapping[str, Any]) -> str:
    series = []
    for place, arm in enumerate(data["arms"]):
        curves = [run["curve"] for run in arm["runs"] if run["finished"] and run["curve"]]
        points = list(zip(*curves, strict=False)) if curves else []
        if not points:
            continue
        losses = [[loss for _, loss in point] for point in points]
        several = len(curves) > 1
        series.append(
            Series(
                arm["label"],
                [100 * point[0][0] for point in points],
                [sum(values) / len(values) for values in losses],
                "line",
                _colour(place),
                [min(values) for values in losses] if several else None,
                [max(values) for values in losses] if several else None,
                str(place + 1),
                0.2 + 0.6 * place / max(len(data["arms"]) - 1, 1),
            )
        )
    why = "Masks of validation are the same for all arms. Bands: lowest to highest over seeds."
    whole = _chart("curve", "Validation loss", series, "share of the budget spent, %", "masked loss")
    late = [one for one in (_from(one, 25) for one in series) if len(one.x) > 2]
    close = _chart(
        "late", "The same, from a quarter of the budget on", late, "share of the budget spent, %", "masked loss"
    )
    return f'<p class="soft">{why}</p><div class="charts">{whole}{close}</div>' if whole else ""


def _from(series: Series, least: float) -> Series:
    """The part of a series from an x on."""
    kept = [index for index, x in enumerate(series.x) if x >= least]

    def pick(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [values[index] for index in kept]

    x, y = pick(series.x) or [], pick(series.y) or []
    low, high = pick(series.low), pick(series.high)
    return Series(series.name, x, y, series.style, series.colour, low, high, series.tag, series.tag_at)


def scatter(data: Mapping[str, Any]) -> str:
    cost = (
        ("flops", "training FLOPs") if data["budget"]["kind"] == "seconds" else ("train_seconds", "seconds of training")
    )
    charts = []
    for metric in judged(data):
        if metric["key"].startswith("loss@") and metric["key"] != "loss@0.75":
            continue
        series = []
        for place, arm in enumerate(data["arms"]):
            found = [run["values"] | {"flops": arm["flops"]} for run in arm["runs"]]
            pairs = [(one[cost[0]], one[metric["key"]]) for one in found if cost[0] in one and metric["key"] in one]
            if pairs:
                x, y = ([float(value) for value in values] for values in zip(*pairs, strict=True))
                series.append(Series(arm["label"], x, y, "dots", _colour(place), tag=str(place + 1), tag_at=0.0))
        better, name = f"{metric['better']} is better", re.sub(r"[^\w-]", "-", metric["key"])
        charts.append(
            _chart(
                f"cost-{name}",
                metric["title"],
                series,
                cost[1],
                f"{metric['title']}, {better}",
            )
        )
    body = "".join(charts)
    return f'<p class="soft">One dot per run.</p><div class="charts">{body}</div>' if body else ""


def _chart(identity: str, title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    chart = line_chart(identity, title, series, x_label=x_label, y_label=y_label)
    shown = [one for one in series if len(one.y)]
    return f"<figure><h3>{text(title)}</h3>{chart}{legend(shown)}</figure>" if chart else ""


class Pictures:
    """Pictures of runs as data of the page, as long as there is room."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room = folder, _ROOM

    def strip(self, run: str, column: Mapping[str, Any], title: str) -> str:
        """A title and its pictures under each other; nothing where they are gone."""
        images = []
        wide = False
        for name in column["files"]:
            path = self.folder / run / "yardstick" / Path(name).name
            if not path.is_file():
                continue
            content = path.read_bytes()
            if len(content) > self.room:
                continue
            self.room -= len(content)
            wide = wide or _is_wide(path)
            kind = "png" if path.suffix == ".png" else "jpeg"
            images.append(f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">')
        if not images:
            return ""
        return (
            f'<div class="strip{" wide" if wide else ""}"><span title="{title}">{title}</span>{"".join(images)}</div>'
        )


def _is_wide(path: Path) -> bool:
    from PIL import Image

    with Image.open(path, formats=["PNG", "JPEG"]) as image:
        return image.width > 2 * image.height


def masks(data: Mapping[str, Any], pictures: Pictures) -> str:
    parts = []
    for place, arm in enumerate(data["arms"], 1):
        strips = [pictures.strip(arm["runs"][0]["folder"], one, text(one["title"])) for one in arm["mask_pictures"]]
        if not any(strips):
            continue
        summary = arm["summary"]
        facts = ""
        if "ratio" in summary:
            facts = (
                f"{summary['ratio']['mean']:.1%} of the tokens hidden over the run; each position between "
                f"{summary['hidden_least']['mean']:.0%} and {summary['hidden_most']['mean']:.0%} of the time; entropy "
                f"{summary['entropy']['mean']:.2f} of at most {summary['entropy_most']['mean']:.2f} bits per token."
            )
        label = f"{place} {text(arm['label'])}"
        parts.append(
            f'<figure class="gallery"><h3>{label}</h3><figcaption>{facts}</figcaption>'
            f'<div class="strips" role="img" aria-label="Masks of {label}">{"".join(strips)}</div></figure>'
        )
    if not parts:
        return ""
    how = (
        "The same validation samples for every arm; what is grey or left out is hidden from the encoder. Last: how "
        "often each position is hidden over the run, from black (never) through red and yellow to white (always)."
    )
    return f'<p class="soft">{how}</p>{"".join(parts)}'


def reconstructions(data: Mapping[str, Any], pictures: Pictures) -> str:
    strips: list[str] = []
    for place, arm in enumerate(data["arms"], 1):
        for one in arm["reconstructions"]:
            run = arm["runs"][0]["folder"]
            if one["title"] == "reconstruction":
                strips.append(pictures.strip(run, one, f"{place} {text(arm['label'])}"))
            elif not strips or (one["title"] == "masked" and len(strips) == 1):
                strips.append(pictures.strip(run, one, text(one["title"])))
    if not any(strips):
        return ""
    how = "Uniform masks of one ratio, the same for all arms; hidden parts as each model completes them."
    figure = f'<div class="strips" role="img" aria-label="Reconstructions by every arm">{"".join(strips)}</div>'
    return f'<p class="soft">{how}</p><figure class="gallery">{figure}</figure>'
