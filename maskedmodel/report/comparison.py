"""report.html of a comparison: verdicts, a table that sorts, curves, masks and reconstructions side by side.

Made from results.json and the pictures of the runs, on one page that opens without a network. Every text goes through
html.escape, and the page's own policy allows no script but its own, told by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from maskedmodel.errors import DataError
from maskedmodel.report.charts import Series, legend, line_chart
from maskedmodel.report.markup import number, part, section, text
from maskedmodel.training.checkpoint import write_text

_COLOURS = 8
_ORDER = ("better", "worse", "no difference seen", "no verdict")
_ROOM = 6_000_000  # bytes of pictures

Arm = Mapping[str, Any]


def write(folder: Path | str) -> Path:
    """Write `report.html` beside results.json. Raises DataError where there is none that can be read."""
    folder = Path(folder)
    try:
        data = json.loads((folder / "results.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("There are no results to report on.", where=folder / "results.json", got=str(error)) from error
    path = folder / "report.html"
    write_text(path, render(data, folder))
    return path


def render(data: Mapping[str, Any], folder: Path) -> str:
    """The page of what results.json holds; pictures are read from the run folders."""
    script = part("sort.js")
    pictures = _Pictures(folder)
    sections = [
        section("Verdicts", _verdicts(data)),
        section("Results", _results(data)),
        section("Along the run", _curves(data)),
        section("Cost against quality", _scatter(data)),
        section("Masks along the run", _masks(data, pictures)),
        section("Reconstructions of the same inputs", _reconstructions(data, pictures)),
        section("What differs", _differences(data)),
        section("How far these numbers carry", _limits(data)),
        section("Every run", _runs(data)),
        section("Settings and surroundings", _settings(data)),
    ]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(part("comparison.html")).substitute(
        style=part("style.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        title=f"{text(data['name'])} - maskedmodel",
        heading=text(data["name"]),
        status=_status(data),
        sections="\n".join(one for one in sections if one),
    )


def _status(data: Mapping[str, Any]) -> str:
    budget, seeds = data["budget"], len(data["seeds"])
    arms = len(data["arms"])
    done = "Finished" if data["done"] == data["total"] else "Not finished"
    return (
        f"{done}: {data['done']} of {data['total']} runs, {arms} arms of {seeds} {'seed' if seeds == 1 else 'seeds'}. "
        f"Each may spend {number(budget['amount'], 3)} {escape(budget['unit'])}. Differences are to "
        f"{text(budget['first'])}."
    )


def _judged(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The metrics that verdicts are about, as far as any arm has them."""
    return [m for m in data["metrics"] if m["better"] and any(m["key"] in arm["summary"] for arm in data["arms"])]


def _difference(against: Mapping[str, Any], digits: int) -> str:
    """Mean and bootstrap interval of a difference."""
    words = f"{against['mean']:+.{digits}f}"
    if against["bootstrap"] is not None:
        low, high = against["bootstrap"]
        words += f" ({low:+.{digits}f} to {high:+.{digits}f})"
    return words


def _verdicts(data: Mapping[str, Any]) -> str:
    items = []
    metrics = {metric["key"]: metric for metric in _judged(data)}
    for place, arm in enumerate(data["arms"][1:], 2):
        groups = []
        for verdict in _ORDER:
            found = {key: one for key, one in arm["against"].items() if one["verdict"] == verdict and key in metrics}
            if not found:
                continue
            listed = "".join(
                f"<dd>{text(metrics[key]['title'])} {_difference(one, metrics[key]['digits'])}</dd>"
                for key, one in found.items()
            )
            why = "".join(f'<dd class="soft">{text(one)}</dd>' for one in sorted({o["why"] for o in found.values()}))
            kind = f' class="{verdict}"' if verdict in ("better", "worse") else ""
            groups.append(f"<dt{kind}>{verdict}</dt>{listed}{why if verdict == 'no verdict' else ''}")
        body = "".join(groups) or "<dd>No run of both under the same seed is finished.</dd>"
        items.append(f"<li><h3>{place} {text(arm['label'])}</h3><dl>{body}</dl></li>")
    note = (
        '<p class="soft">In brackets the 95 % bootstrap interval of the mean difference over seeds. '
        "&ldquo;No difference seen&rdquo; isn&rsquo;t &ldquo;no difference&rdquo;.</p>"
    )
    return f'<ul class="verdicts">{"".join(items)}</ul>{note}'


def _results(data: Mapping[str, Any]) -> str:
    metrics = [m for m in data["metrics"] if any(m["key"] in arm["summary"] for arm in data["arms"])]
    headings = ["arm", "steps", "training FLOPs", *(m["title"] for m in metrics)]
    rows = []
    for place, arm in enumerate(data["arms"], 1):
        cells = [_cell(f"{arm['steps']:,}", arm["steps"]), _cell(number(arm["flops"], 3), arm["flops"])]
        cells += [_figure_cell(arm, metric) for metric in metrics]
        rows.append(f'<tr><th scope="row" data-value="{place}">{place} {text(arm["label"])}</th>{"".join(cells)}</tr>')
    untrained = data.get("untrained")
    if untrained:
        cells = [_cell("0", 0), _cell("0", 0)]
        for metric in metrics:
            value = untrained.get(metric["key"])
            cells.append(_cell(_plain(value, metric["digits"]), value))
        name = f'<th scope="row" data-value="{len(data["arms"]) + 1}">weights at the start</th>'
        rows.append(f"<tr>{name}{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{text(heading)}</th>' for heading in headings)
    caption = (
        f"Mean and standard deviation over {len(data['seeds'])} seeds, and below them the difference to "
        f"{text(data['budget']['first'])} with its verdict. Masked loss: lower is better. k-NN, linear probe: accuracy."
    )
    out = "".join(
        f'<p class="note">{text(_title(data, key))} is left out: {text(why)}.</p>'
        for key, why in data["left_out"].items()
    )
    return (
        f'{out}<div class="scroll" role="region" aria-label="Results" tabindex="0">'
        f'<table class="results sortable" data-status="sorted"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="soft" id="sorted" role="status"></p>'
    )


def _title(data: Mapping[str, Any], key: str) -> str:
    return next((str(metric["title"]) for metric in data["metrics"] if metric["key"] == key), key)


def _cell(shown: str, value: float | None) -> str:
    """A cell and what it is sorted by."""
    return f'<td data-value="{"" if value is None else repr(value)}">{shown}</td>'


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _figure_cell(arm: Arm, metric: Mapping[str, Any]) -> str:
    spread, against = arm["summary"].get(metric["key"]), arm["against"].get(metric["key"])
    if spread is None:
        return _cell("-", None)
    shown = f"{spread['mean']:,.{metric['digits']}f}"
    if spread["deviation"] is not None:
        shown += f" &plusmn; {spread['deviation']:,.{metric['digits']}f}"
    if against is not None:
        verdict = against["verdict"]
        kind = f' class="{verdict}"' if verdict in ("better", "worse") else ""
        shown += f"<small>{against['mean']:+.{metric['digits']}f} <span{kind}>{verdict}</span></small>"
    return _cell(shown, spread["mean"])


def _colour(place: int) -> int:
    return place % _COLOURS + 1


def _curves(data: Mapping[str, Any]) -> str:
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
                0.25 + 0.7 * place / max(len(data["arms"]) - 1, 1),
            )
        )
    why = "Masks of validation are the same for all arms. Bands: lowest to highest over seeds."
    whole = _chart("curve", "Validation loss", series, "share of the budget spent, %", "masked loss")
    late = [_from(one, 25) for one in series]
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


def _scatter(data: Mapping[str, Any]) -> str:
    cost = (
        ("flops", "training FLOPs") if data["budget"]["kind"] == "seconds" else ("train_seconds", "seconds of training")
    )
    charts = []
    for metric in _judged(data):
        if metric["key"] not in ("linear", "knn", "loss@0.75"):
            continue
        series = []
        for place, arm in enumerate(data["arms"]):
            found = [run["values"] | {"flops": arm["flops"]} for run in arm["runs"]]
            pairs = [(one[cost[0]], one[metric["key"]]) for one in found if cost[0] in one and metric["key"] in one]
            if pairs:
                x, y = ([float(value) for value in values] for values in zip(*pairs, strict=True))
                series.append(Series(arm["label"], x, y, "dots", _colour(place), tag=str(place + 1), tag_at=0.0))
        better = f"{metric['better']} is better"
        charts.append(_chart(f"cost-{metric['key']}", metric["title"], series, cost[1], f"{metric['title']}, {better}"))
    body = "".join(charts)
    return f'<p class="soft">One dot per run.</p><div class="charts">{body}</div>' if body else ""


def _chart(identity: str, title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    chart = line_chart(identity, title, series, x_label=x_label, y_label=y_label)
    shown = [one for one in series if len(one.y)]
    return f"<figure><h3>{text(title)}</h3>{chart}{legend(shown)}</figure>" if chart else ""


class _Pictures:
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
        return f'<div class="strip{" wide" if wide else ""}"><span>{title}</span>{"".join(images)}</div>'


def _is_wide(path: Path) -> bool:
    from PIL import Image

    with Image.open(path, formats=["PNG", "JPEG"]) as image:
        return image.width > 2 * image.height


def _masks(data: Mapping[str, Any], pictures: _Pictures) -> str:
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
        "The same validation samples for every arm; grey is hidden from the encoder. Last: how often each position is "
        "hidden over the run, from black (never) through red and yellow to white (always)."
    )
    return f'<p class="soft">{how}</p>{"".join(parts)}'


def _reconstructions(data: Mapping[str, Any], pictures: _Pictures) -> str:
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
    how = "Uniform masks of one ratio, the same for all arms. What stands in place of visible parts was never trained."
    figure = f'<div class="strips" role="img" aria-label="Reconstructions by every arm">{"".join(strips)}</div>'
    return f'<p class="soft">{how}</p><figure class="gallery">{figure}</figure>'


def _differences(data: Mapping[str, Any]) -> str:
    first = data["arms"][0]
    paths = list(dict.fromkeys(path for arm in data["arms"] for path, _, _ in arm["differences"]))
    theirs = {path: old for arm in data["arms"] for path, old, _ in arm["differences"]}
    head = "".join(f'<th scope="col">{place} {text(arm["label"])}</th>' for place, arm in enumerate(data["arms"], 1))
    rows = []
    for path in paths:
        cells = [_setting(theirs[path])]
        for arm in data["arms"][1:]:
            own = {name: new for name, _, new in arm["differences"]}
            cells.append(_setting(own.get(path, theirs[path])))
        rows.append(f'<tr><th scope="row">{text(path)}</th>{"".join(cells)}</tr>')
    if not rows:
        return ""
    caption = f"Every setting in which an arm differs from {text(first['label'])}. All others are the same for all."
    return (
        f'<div class="scroll" role="region" aria-label="Differences" tabindex="0"><table class="where">'
        f'<caption>{caption}</caption><thead><tr><th scope="col">setting</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _setting(value: Any) -> str:
    shown = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return f"<td>{text(shown)}</td>"


def _limits(data: Mapping[str, Any]) -> str:
    notes = "".join(f"<li>{text(note, 2000)}</li>" for note in data["notes"])
    protocol = f'<p class="soft">{text(data["protocol"], 4000)}</p>' if data["protocol"] else ""
    return f'<ul class="limits">{notes}</ul>{protocol}'


def _runs(data: Mapping[str, Any]) -> str:
    metrics = [m for m in data["metrics"] if any(m["key"] in arm["summary"] for arm in data["arms"])]
    head = "".join(f'<th scope="col">{text(title)}</th>' for title in ("arm", "seed", *(m["title"] for m in metrics)))
    rows = []
    for place, arm in enumerate(data["arms"], 1):
        for run in arm["runs"]:
            cells = [f"<td>{run['seed']}</td>"]
            if run["failed"]:
                cells.append(f'<td colspan="{len(metrics)}">failed: {text(run["failed"])}</td>')
            else:
                cells += [
                    f"<td>{_plain(run['values'].get(metric['key']), metric['digits'])}</td>" for metric in metrics
                ]
            rows.append(f'<tr><th scope="row">{place} {text(arm["label"])}</th>{"".join(cells)}</tr>')
    table = (
        f'<table class="results"><caption>One row per run; the folder is runs/arm/seed</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    scroll = f'<div class="scroll" role="region" aria-label="Every run" tabindex="0">{table}</div>'
    return f"<details><summary>{len(rows)} runs</summary>{scroll}</details>"


def _settings(data: Mapping[str, Any]) -> str:
    config = f'<pre class="wrap">{text(data["config"], 100_000)}</pre>'
    rows = "".join(
        f'<tr><th scope="row">{text(key)}</th><td>{text(value)}</td></tr>' for key, value in data["environment"].items()
    )
    environment = f"<table><caption>Where it ran</caption><tbody>{rows}</tbody></table>"
    return (
        f"<details><summary>The config that all arms start from</summary>{config}</details>"
        f"<details><summary>Environment</summary>{environment}</details>"
    )
