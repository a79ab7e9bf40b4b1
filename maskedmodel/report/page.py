"""report.html: everything about a run on one page that opens without a network.

Every text from the run goes through html.escape; the page's own policy forbids scripts and anything from elsewhere.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

from maskedmodel.report import probing
from maskedmodel.report.adapted import worth
from maskedmodel.report.charts import Series, legend, line_chart, smoothed
from maskedmodel.report.markup import number as _number
from maskedmodel.report.markup import part as _part
from maskedmodel.report.markup import section as _section
from maskedmodel.report.markup import table as _table
from maskedmodel.report.markup import text as _text
from maskedmodel.report.reader import RunData, read
from maskedmodel.training.checkpoint import write_text

_LISTED = 50  # bad samples
_TEXT = 100_000  # characters of the config


def write(run: Path | str) -> Path:
    """Write `report.html` into a run folder and return its path. Whatever the run doesn't have yet is left out.

    Raises DataError where the folder is no run, TrainingError where it can't be written to.
    """
    run = Path(run)
    path = run / "report.html"
    write_text(path, render(read(run)))
    return path


def render(data: RunData) -> str:
    """The page."""
    template, style = (_part(name) for name in ("template.html", "style.css"))
    name = data.run.resolve().name
    sections = [
        _section("What it is worth", worth(data)),
        _section("Loss", _losses(data)),
        _section("The encoder while it trained", _watched(data)),
        _section("Pictures", _pictures(data)),
        _section("What the features are worth", _probes(data)),
        _section("Masks, gradients and speed", _curves(data)),
        _section("What the weights began with", _start(data)),
        _section("What the data was taken for", _facts(data)),
        _section("Samples that could not be read", _broken(data)),
        _section("What to type next", _next(data)),
        _section("Settings and surroundings", _settings(data)),
    ]
    return Template(template).substitute(
        style=style,
        title=f"{_text(name)} - maskedmodel",
        heading=_text(name),
        status=_status(data),
        notes="".join(f'<p class="note">{_text(note)}</p>' for note in data.unreadable),
        tiles=_tiles(data),
        sections="\n".join(section for section in sections if section),
    )


def _status(data: RunData) -> str:
    if data.steps is None:
        return f"Step {data.step:,}." if data.step else "Not trained here."
    if data.step >= data.steps:
        return f"Finished: {data.steps:,} steps."
    if data.stopped is not None:
        return f"Stopped {_text(str(data.stopped))}."
    return f"Not finished: step {data.step:,} of {data.steps:,}, as far as this page was told."


def _tiles(data: RunData) -> str:
    tiles: list[tuple[str, str, str]] = []
    losses = [line["val_loss"] for line in data.validation]
    if data.judged is not None:
        judged, best = data.judged[0], data.judged[0].best
        other = "" if data.twin is None else f"{_number(data.twin[0].best.value, 3)} from scratch"
        tiles.append((judged.score, _number(best.value, 3), other))
    if losses:
        against = "" if data.baseline is None else f", predicting zero {_number(data.baseline, 3)}"
        small = f"{_number(losses[0], 3)} at the start{against}" if len(losses) > 1 else against[2:]
        tiles.append(("validation loss", _number(losses[-1], 3), small))
    elif data.training:
        tiles.append(("training loss", _number(data.training[-1]["loss"], 3), ""))
    if data.probe is not None:
        tiles += probing.tiles(data.probe)
    speeds = [line["samples_per_second"] for line in data.timings if "samples_per_second" in line]
    if speeds:
        tiles.append(("samples per second", _number(median(speeds), 3), "median"))
    cells = [
        f"<div><dt>{_text(title)}</dt><dd>{_text(value)}{f'<small>{_text(small)}</small>' if small else ''}</dd></div>"
        for title, value, small in tiles
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>' if cells else ""


def _figure(identity: str, title: str, series: Sequence[Series], y_label: str, from_zero: bool = False) -> str:
    chart = line_chart(identity, title, series, x_label="step", y_label=y_label, from_zero=from_zero)
    if not chart:
        return ""
    shown = [one for one in series if len(one.y)]
    return f"<figure><h3>{escape(title)}</h3>{chart}{legend(shown) if len(shown) > 1 else ''}</figure>"


def _column(lines: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one quantity."""
    found = [(float(line["step"]), line[name]) for line in lines if isinstance(line.get(name), int | float)]
    return [step for step, _ in found], [float(value) for _, value in found]


def _losses(data: RunData) -> str:
    steps, losses = _column(data.training, "loss")
    span = max(len(losses) // 30, 5)
    series = [
        Series("training, every line", steps, losses, "faint", 1),
        Series(f"training, smoothed over {span} lines", steps, smoothed(losses, span), "line", 1),
        Series("validation, fixed masks", *_column(data.validation, "val_loss"), "dots", 2),
    ]
    if data.baseline is not None:
        series.append(Series("always predicting zero", [0.0], [data.baseline], "rule", 3))
    rate = Series("learning rate", *_column(data.training, "lr"), "line", 4)
    if data.finetuned:
        series[2] = Series("validation", *_column(data.validation, "val_loss"), "dots", 2)
        body = _figure("loss", "Loss of the task", series, "loss")
        body += "".join(
            _figure(f"metric-{index}", f"Validation: {name}", [Series(name, *found, "dots", 2)], name)
            for index, (name, found) in enumerate(_measured(data).items())
        )
    else:
        body = _figure("loss", "Loss on hidden tokens", series, "loss, training target space")
    body += _figure("rate", "Learning rate", [rate], "learning rate", from_zero=True)
    return f'<div class="charts">{body}</div>' if body else ""


def _measured(data: RunData) -> dict[str, tuple[list[float], list[float]]]:
    """What validation measured beside the loss, by name."""
    names = dict.fromkeys(key for line in data.validation for key in line if key.startswith("val_"))
    return {name.removeprefix("val_"): _column(data.validation, name) for name in names if name != "val_loss"}


def _watched(data: RunData) -> str:
    """What `evaluate.every` recorded."""
    names = [("knn", "k-NN"), ("linear", "linear probe, C = 1")]
    accuracy = [Series(said, *_column(data.watched, name), "line", at) for at, (name, said) in enumerate(names, 1)]
    ratios = sorted({name for line in data.watched for name in line if name.startswith("loss@")})
    losses = [
        Series(f"{float(name[5:]):.0%} hidden", *_column(data.watched, name), "line", at % 4 + 1)
        for at, name in enumerate(ratios)
    ]
    kinds = [("rankme", "features as they are"), ("rankme_centred", "their mean taken off")]
    ranks = [Series(said, *_column(data.watched, name), "line", at) for at, (name, said) in enumerate(kinds, 1)]
    body = "".join(
        [
            _figure("watched", "k-NN and linear probe on fixed samples", accuracy, "accuracy"),
            _figure("rank", "Effective rank of the features (RankMe)", ranks, "dimensions"),
            _figure("ratios", "Validation loss by mask ratio", losses, "loss, training target space"),
        ]
    )
    return f'<div class="charts">{body}</div>' if body else ""


def _curves(data: RunData) -> str:
    ratio = Series("share of tokens hidden", *_column(data.training, "ratio"), "line", 2)
    norm = Series("gradient norm", *_column(data.training, "grad_norm"), "line", 3)
    speed = Series("samples per second", *_column(data.timings, "samples_per_second"), "line", 1)
    steps, shares = _column(data.timings, "data_wait")
    wait = Series("waiting for data", steps, [100 * share for share in shares], "line", 2)
    figures = [
        _figure("ratio", "Mask ratio in training", [ratio], "share of tokens hidden"),
        _figure("norm", "Gradient norm", [norm], "norm before clipping", from_zero=True),
        _figure("speed", "Throughput", [speed], "samples per second", from_zero=True),
        _figure("wait", "Time spent waiting for data", [wait], "% of the time", from_zero=True),
    ]
    body = "".join(figures)
    return f'<div class="charts">{body}</div>' if body else ""


def _pictures(data: RunData) -> str:
    parts = []
    for picture in data.pictures:
        name = _text(picture.name)
        if picture.data is None:
            parts.append(f'<p class="soft">pictures/{name} had no room here: open the file itself.</p>')
            continue
        source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.data).decode()}"
        about = f"pictures/{name}{': ' if picture.about else ''}{_text(picture.about)}"
        image = f'<img alt="{about}" src="{source}">'
        parts.append(f'<figure class="picture">{image}<figcaption>{about}</figcaption></figure>')
    for medium in data.media:
        name = _text(medium.name)
        if medium.data is None:
            parts.append(f'<p class="soft">pictures/{name} had no room here: open the file itself.</p>')
            continue
        source = f"data:{medium.kind};base64,{base64.b64encode(medium.data).decode()}"
        shown = (
            f'<audio controls src="{source}" aria-label="{name}"></audio>'
            if medium.kind.startswith("audio/")
            else f'<img alt="{name}" src="{source}">'
        )
        parts.append(f'<figure class="picture">{shown}<figcaption>pictures/{name}</figcaption></figure>')
    return f'<div class="pictures">{"".join(parts)}</div>' if parts else ""


def _probes(data: RunData) -> str:
    return probing.section(([] if data.probe is None else [data.probe]) + data.other_probes)


def _facts(data: RunData) -> str:
    return _about("As the data source says; what was left out, converted or guessed first", data.facts)


def _start(data: RunData) -> str:
    return _about("What became of each tensor stands in start.json", data.start)


def _about(caption: str, about: Sequence[tuple[str, str]]) -> str:
    """Pairs of a thing and what is said of it; nothing where there are none."""
    rows = [f'<tr><th scope="row">{_text(of, 60)}</th><td>{_text(what, 600)}</td></tr>' for of, what in about]
    return _table(caption, ("of", "what"), rows) if rows else ""


def _broken(data: RunData) -> str:
    if not data.broken:
        return ""
    rows = [f"<tr><td>{_text(name, 160)}</td><td>{_text(reason)}</td></tr>" for name, reason in data.broken[:_LISTED]]
    more = len(data.broken) - len(rows)
    rest = f'<p class="soft">And {more:,} more, in state.json of the newest checkpoint.</p>' if more else ""
    return _table(f"{len(data.broken):,} skipped", ("sample", "why"), rows) + rest


def _next(data: RunData) -> str:
    run = shlex.quote(str(data.run))
    config = shlex.quote(str(data.run / "config.yaml"))
    on = "" if data.stopped is None else f"# goes on without callbacks; or with other settings of {data.stopped.by}"
    if data.finetuned:
        predict = f"maskedmodel predict {run} FILES --to predictions.parquet   # what it says of your own files"
        again = f"maskedmodel finetune {config} --run {run} callbacks=[]   {on}"
        return _commands(
            [*([again] if on else []), predict],
            f"import maskedmodel\nmodel = maskedmodel.load({str(data.run)!r})\nprediction = model(signal)",
        )
    lines = []
    if data.steps is not None and data.step < data.steps:
        how = f" callbacks=[]   {on}" if on else "   # goes on where it stopped"
        lines.append(f"maskedmodel pretrain {config} --run {run}{how}")
    lines += [
        f"maskedmodel reconstruct {run}   # pictures: add your own files behind it",
        f"maskedmodel probe {run}         # k-NN and linear probe against random weights",
        f"maskedmodel embed {run} DATA --to features.parquet",
        f"maskedmodel finetune {run}      # adapt the encoder to labels",
    ]
    python = f"import maskedmodel\nmodel = maskedmodel.load({str(data.run)!r})\nfeatures = model.encode(signal)"
    return _commands(lines, python)


def _commands(lines: Sequence[str], python: str) -> str:
    return f"<pre>{_text(chr(10).join(lines), 4000)}</pre><pre>{_text(python, 4000)}</pre>"


def _settings(data: RunData) -> str:
    parts = []
    if data.config_text:
        text = _text(data.config_text, _TEXT)
        parts.append(f'<details><summary>config.yaml</summary><pre class="wrap">{text}</pre></details>')
    for title, values in (("Environment", data.environment), ("Summary", data.summary)):
        rows = [f'<tr><th scope="row">{_text(key)}</th><td>{_text(value)}</td></tr>' for key, value in values.items()]
        if rows:
            parts.append(f"<details><summary>{title}</summary>{_table('', (), rows[:200])}</details>")
    return "".join(parts)
