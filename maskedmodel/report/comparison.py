"""report.html of a comparison: verdicts, a table that sorts, curves, masks and reconstructions side by side.

Made from results.json and the pictures of the runs, on one page that opens without a network. Every text goes through
html.escape, and the page's own policy allows no script but its own, told by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from maskedmodel.errors import DataError
from maskedmodel.report.comparison_figures import Pictures, curves, judged, known, masks, reconstructions, scatter
from maskedmodel.report.markup import number, part, section, text
from maskedmodel.training.checkpoint import write_text

_ORDER = ("better", "worse", "no difference seen", "no verdict")

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
    pictures = Pictures(folder)
    sections = [
        section("Verdicts", _verdicts(data)),
        section("Results", _results(data)),
        section("Along the run", curves(data)),
        section("Cost against quality", scatter(data)),
        section("Masks along the run", masks(data, pictures)),
        section("Reconstructions of the same inputs", reconstructions(data, pictures)),
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
        f"Each may spend {_scaled(budget['amount'])} {escape(budget['unit'])}. Differences are to "
        f"{text(budget['first'])}."
    )


def _signed(value: float, digits: int) -> str:
    """A difference with its sign, a minus as printed."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _difference(against: Mapping[str, Any], digits: int) -> str:
    """Mean and bootstrap interval of a difference, and what would have gone unseen."""
    words = f"<b>{_signed(against['mean'], digits)}</b>"
    if against["bootstrap"] is not None:
        low, high = against["bootstrap"]
        words += f" <span>{_signed(low, digits)} to {_signed(high, digits)}</span>"
    if against["verdict"] == "no difference seen" and against["missed"]:
        words += f" <span>unseen below {against['missed']:.2g}</span>"
    return words


def _verdicts(data: Mapping[str, Any]) -> str:
    items = []
    metrics = {metric["key"]: metric for metric in judged(data)}
    primary = (data.get("primary") or {}).get("key")
    for place, arm in enumerate(data["arms"][1:], 2):
        groups = []
        against = {key: one for key, one in arm["against"].items() if key in metrics}
        if primary is not None and primary in against:
            one = against[primary]
            groups.append(_group(one["verdict"], {primary: one}, metrics, ", primary measure"))
        for verdict in _ORDER:
            found = {key: one for key, one in against.items() if one["verdict"] == verdict and key != primary}
            if found:
                groups.append(_group(verdict, found, metrics))
        body = "".join(groups) or "<dd>No run of both under the same seed is finished.</dd>"
        items.append(f"<li><h3>{place} {text(arm['label'])}</h3><dl>{body}</dl></li>")
    note = (
        '<p class="soft">Mean difference to the first arm over seeds, and its 95 % bootstrap interval. Better and '
        "worse need Student&rsquo;s interval to leave out zero as well. &ldquo;No difference seen&rdquo; isn&rsquo;t "
        "&ldquo;no difference&rdquo;: one below the last number would mostly have gone unseen.</p>"
    )
    return f'<ul class="verdicts">{"".join(items)}</ul>{note}'


def _group(
    verdict: str, found: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, Mapping[str, Any]], more: str = ""
) -> str:
    """The figures with one verdict."""
    listed = "".join(
        f"<dd>{text(metrics[key]['title'])} <small>{_difference(one, metrics[key]['digits'])}</small></dd>"
        for key, one in found.items()
    )
    why = "".join(f'<dd class="soft">{text(one)}</dd>' for one in sorted({o["why"] for o in found.values()}))
    kind = f' class="{verdict}"' if verdict in ("better", "worse") else ""
    return f"<dt{kind}>{verdict}{more}</dt>{listed}{why if verdict == 'no verdict' else ''}"


def _results(data: Mapping[str, Any]) -> str:
    metrics = [m for m in known(data) if m["main"]]
    headings = ["arm", "steps", "training FLOPs", "scheduler's part of them", *(m["title"] for m in metrics)]
    rows = []
    for place, arm in enumerate(data["arms"], 1):
        cells = [_cell(f"{arm['steps']:,}", arm["steps"]), _cell(_scaled(arm["flops"]), arm["flops"])]
        cells.append(_cell(f"{arm['scheduling']:.1%}", arm["scheduling"]))
        cells += [_figure_cell(arm, metric) for metric in metrics]
        rows.append(f'<tr><th scope="row" data-value="{place}">{place} {text(arm["label"])}</th>{"".join(cells)}</tr>')
    untrained = data.get("untrained")
    if untrained:
        cells = [_cell("0", 0), _cell("0", 0), _cell("-", None)]
        for metric in metrics:
            value = untrained.get(metric["key"])
            cells.append(_cell(_plain(value, metric["digits"]), value))
        name = f'<th scope="row" data-value="{len(data["arms"]) + 1}">weights at the start</th>'
        rows.append(f"<tr>{name}{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{text(heading)}</th>' for heading in headings)
    seeds = len(data["seeds"])
    spread = f"Mean and standard deviation over {seeds} seeds" if seeds > 1 else "The values of one seed"
    how = (
        f"{spread}, and below the difference to "
        f"{text(data['budget']['first'])} with its verdict. Masked loss: lower is better."
    )
    scores = [text(metric["title"]) for metric in metrics if metric["better"] == "higher"]
    if scores:
        how += f" {' and '.join(filter(None, [', '.join(scores[:-1]), scores[-1]]))}: accuracy, higher is better."
    out = "".join(
        f'<p class="note">{text(_title(data, key))} is left out: {text(why)}.</p>'
        for key, why in data["left_out"].items()
    )
    return (
        f'<p class="soft">{how}</p>{out}<div class="scroll" role="region" aria-label="Results" tabindex="0">'
        '<table class="results sortable" data-status="sorted"><caption>Every arm, over its seeds</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="soft" id="sorted" role="status"></p>'
    )


def _title(data: Mapping[str, Any], key: str) -> str:
    return next((str(metric["title"]) for metric in data["metrics"] if metric["key"] == key), key)


def _cell(shown: str, value: float | None) -> str:
    """A cell and what it is sorted by."""
    return f'<td data-value="{"" if value is None else repr(value)}">{shown}</td>'


def _scaled(value: float) -> str:
    """A large number with the prefix that makes it short: 1.2 T is 1.2e12."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if value >= 10**power:
            return f"{value / 10**power:.3g}&nbsp;{prefix}"
    return number(value, 3)


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
        shown += f"<small>{_signed(against['mean'], metric['digits'])} <span{kind}>{verdict}</span></small>"
    return _cell(shown, spread["mean"])


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
    metrics = known(data)
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
