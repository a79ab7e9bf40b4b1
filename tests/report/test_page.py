from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from maskedmodel.errors import DataError
from maskedmodel.report import write
from maskedmodel.report.page import render
from maskedmodel.report.reader import Picture, RunData, read

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>.png',
    "' onload='alert(1)",
    "</title></style></svg></pre><iframe src=https://example.org>",
    "&lt;b&gt; ${heading} $sections %s {0}",
    "x" * 100_000,
    "\u8d85\u957f\u6587\u4ef6\u540d \u202e \U0001f600 \udcff",
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, text; fails on tags that don't close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check_safe(html: str) -> Page:
    page = Page(html)
    assert not {"script", "iframe", "link", "object", "embed", "base", "form", "a"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "srcset", "action", "data", "xlink:href", "poster"):
            assert tag == "img"
            assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", value), value[:80]
    style = re.search("<style>(.*)</style>", html, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    identities = [value for _, name, value in page.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    assert len(html.encode("utf-8")) < 2_000_000
    return page


def test_a_whole_run_on_one_page(run: Path) -> None:
    path = write(run)
    assert path == run / "report.html"
    html = path.read_text("utf-8")
    page = check_safe(html)
    text = " ".join(page.text)
    headings = [
        "Loss",
        "Pictures",
        "What the features are worth",
        "Masks, gradients and speed",
        "Samples that could not be read",
        "What to type next",
        "Settings and surroundings",
    ]
    assert re.findall("<h2>(.*?)</h2>", html) == headings
    assert page.tags.count("svg") - html.count('class="key"') == 6
    for part in (
        "Finished: 100 steps.",
        "0.188",
        "1.4 at the start",
        "0.930",
        "0.920 to 0.940",
        "0.950",
        "C 0.1",
        "always predicting zero",
        "smoothed",
        "validation, fixed masks",
        "Feature: mean over the tokens.",
        "It is truncated.",
        "name: digits",
        "2.13.0",
        "maskedmodel reconstruct",
        "uses hidden statistics",
    ):
        assert part in text, part
    assert "http-equiv" in html
    assert not re.search(r"https?://", html)
    assert "prefers-color-scheme: dark" in html


def test_what_the_weights_began_with_is_told(run: Path) -> None:
    assert "What the weights began with" not in render(read(run))
    kept = {"source": "runs/first", "loaded": ["a", "b"], "fresh": ["c"], "left_out": [], "notes": ["<i>odd</i>"]}
    more = {"converted": {"encoder.embed.weight": "patches of 4 to 8"}, "origin": {"licence": "CC-BY-NC"}}
    (run / "start.json").write_text(json.dumps({**kept, **more}))
    html = render(read(run))
    check_safe(html)
    for said in ("What the weights began with", "2 loaded, 1 converted, 1 fresh, 0 left out", "CC-BY-NC", "&lt;i&gt;"):
        assert said in html
    (run / "start.json").write_text("{}")
    assert "start.json can" in render(read(run))


@pytest.mark.parametrize("why", HOSTILE)
def test_who_stopped_a_run_is_told_with_how_to_go_on(run: Path, why: str) -> None:
    stopped = {"step": 3, "steps": 1000, "by": "early_stopping", "settings": {}, "why": why}
    (run / "config.yaml").write_text("train:\n  steps: 1000\n", "utf-8")
    (run / "summary.json").write_text(json.dumps({"stopped": stopped}), "utf-8")
    page = check_safe(write(run).read_text("utf-8"))
    text = "".join(page.text)
    assert "Stopped at step 3 of 1,000 by early_stopping" in text
    assert "callbacks=[]   # goes on without callbacks" in text
    (run / "summary.json").write_text(json.dumps({"stopped": {**stopped, "step": "3"}}), "utf-8")
    assert "Not finished: step" in "".join(check_safe(write(run).read_text("utf-8")).text)


def test_every_missing_part_is_left_out(run: Path) -> None:
    for name in ("metrics.jsonl", "timings.jsonl", "environment.json", "summary.json", "probe.json"):
        html = render(read(run))
        check_safe(html)
        (run / name).unlink()
    for path in [*run.glob("pictures/*"), *run.glob("checkpoints/*/*")]:
        path.unlink()
    html = render(read(run))
    check_safe(html)
    assert re.findall("<h2>(.*?)</h2>", html) == ["What to type next", "Settings and surroundings"]
    assert "Not finished: step 0 of 100" in html
    assert "--run" in html


def test_a_run_without_a_config(run: Path) -> None:
    (run / "config.yaml").unlink()
    html = render(read(run))
    check_safe(html)
    assert "Step 100." in html


def test_imported_weights_have_no_training_to_show(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("tokenizer: {name: image}\n")
    html = render(read(tmp_path))
    check_safe(html)
    assert "Not trained here." in html


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(text: str) -> None:
    probe = {
        "name": text,
        "width": 1,
        "knn": {"value": 0.5, "low": 0.4, "high": 0.6, "count": 10},
        "linear": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "count": 10}, "c": 1.0, "converged": False},
    }
    from maskedmodel.evaluation.probes import ProbeResult

    data = RunData(
        Path("runs") / text.replace("/", "|"),
        config_text=text,
        training=[{"step": 1, "loss": 1.0}],
        environment={text: text},
        summary={text: [text]},
        probe=ProbeResult.from_dict({"rows": [probe, probe], "protocol": text, "notes": [text]}),
        broken=[(text, text)] * 1000,
        pictures=[Picture(text, "png", b"x", text), Picture(text, "png", None)],
        unreadable=[text],
    )
    page = check_safe(render(data))
    assert page.tags.count("img") == 1
    if len(text) < 200 and "\udcff" not in text:
        assert "".join(page.text).count(text) >= 50
    assert any("And 950 more" in part for part in page.text)


def test_numbers_that_are_not_finite_do_no_harm(run: Path) -> None:
    lines = [{"step": s, "loss": value, "lr": None, "ratio": "x"} for s, value in enumerate([1.0, math.nan, math.inf])]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = check_safe(render(read(run)))
    assert not any("nan" in value or "inf" in value for tag, _, value in page.attributes if tag in ("polyline", "line"))


def test_a_long_run_stays_small(run: Path) -> None:
    lines = [{"step": s, "loss": 1 + math.sin(s), "lr": 1e-4, "ratio": 0.75, "grad_norm": 1.0} for s in range(50_000)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.yaml").write_text("# " + "long " * 100_000 + "\ntrain: {steps: 5}\n")
    text = render(read(run))
    page = check_safe(text)
    assert len(text) < 400_000  # the files are 5 MB: curves are thinned, the config is cut
    points = [len(value.split()) for tag, name, value in page.attributes if (tag, name) == ("polyline", "points")]
    assert points
    assert max(points) <= 2_000


def test_an_old_page_is_replaced_and_nothing_is_left_beside(run: Path) -> None:
    write(run)
    write(run)
    assert not list(run.glob(".*"))
    with pytest.raises(DataError):
        write(run / "none")


def test_sound_and_moving_pictures_are_embedded_and_other_probes_have_tables(run: Path) -> None:
    folder = run / "pictures" / "oracle"
    folder.mkdir()
    (folder / "1-original.wav").write_bytes(b"RIFF")
    (folder / "1-clip.gif").write_bytes(b"GIF89a")
    (folder / "notes.txt").write_text("not shown")
    probe = json.loads((run / "probe.json").read_text())
    (run / "probe-speaker.json").write_text(json.dumps({**probe, "about": "data.label=<speaker>"}))
    page = write(run).read_text()
    assert '<audio controls src="data:audio/wav;base64,UklGRg=="' in page
    assert 'src="data:image/gif;base64,R0lGODlh"' in page
    assert "not shown" not in page
    assert "With data.label=&lt;speaker&gt;: accuracy" in page
