"""The page: what a parser finds in it, and what a browser makes of it."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskedmodel.comparison.result import Comparison
from maskedmodel.errors import DataError
from maskedmodel.report.comparison import render, write
from tests.comparison.browser import NAMES, Browser, find
from tests.report.test_page import HOSTILE, Page


def check_safe(html: str) -> Page:
    """As for the page of a run, and one script, which the page's own policy knows by its hash."""
    page = Page(html)
    assert not {"iframe", "link", "object", "embed", "base", "form", "a"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "srcset", "action", "data", "xlink:href", "poster"):
            assert tag == "img"
            assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", value), value[:80]
    (script,) = re.findall("<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    style = re.search("<style>(.*)</style>", html, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    identities = [value for _, name, value in page.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    return page


def test_the_whole_page(whole: Comparison) -> None:
    html = whole.report.read_text("utf-8")
    page = check_safe(html)
    assert not re.search(r"https?://", html)
    assert re.findall("<h2>(.*?)</h2>", html) == [
        "Verdicts",
        "Results",
        "Along the run",
        "Cost against quality",
        "Masks along the run",
        "Reconstructions of the same inputs",
        "What differs",
        "How far these numbers carry",
        "Every run",
        "Settings and surroundings",
    ]
    text = " ".join(page.text)
    for part in (
        "Finished: 9 of 9 runs, 3 arms of 3 seeds.",
        "uniform ratio=0.25",
        "masked loss at 0.9",
        "weights at the start",
        "share hidden",
        "mask entropy",
        "Student",
        "no correction is made",
        "mask.ratio",
        "name: digits",
    ):
        assert part in text, part
    assert html.count("<polygon") == 6  # a band for each arm in both charts of the loss
    assert page.tags.count("svg") - html.count('class="key"') == 5
    assert "prefers-color-scheme: dark" in html


def test_the_table_can_be_read_without_script_and_by_ear(whole: Comparison) -> None:
    html = whole.report.read_text("utf-8")
    (table,) = re.findall(r'<table class="results sortable".*?</table>', html, re.S)
    assert table.count("<caption>") == 1
    head, body = table.split("<tbody>")
    assert re.findall("<th(?!ead| scope)", table) == []
    assert head.count('<th scope="col">') == 4 + 11
    assert body.count('<th scope="row"') == 4
    assert "<button" not in table  # the script makes them
    for arm in whole.data["arms"]:
        for metric in ("loss@0.75", "linear"):
            assert f"{arm['summary'][metric]['mean']:.4f} &plusmn; " in body
    for found in re.findall(r'data-value="([^"]*)"', table):
        assert found == "" or float(found) >= 0
    assert html.count("<caption>") == html.count("<table")


def test_pictures_are_embedded_side_by_side(whole: Comparison) -> None:
    html = whole.report.read_text("utf-8")
    assert html.count('class="gallery"') == 4  # masks of three arms, reconstructions of all
    assert html.count("<img") == 3 * (5 * 3 + 1) + 3 * (2 + 3)
    assert len(html) < 400_000


def data_of(whole: Comparison) -> dict[str, Any]:
    return copy.deepcopy(whole.data)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(text: str, whole: Comparison) -> None:
    data = data_of(whole)
    data |= {"name": text, "notes": [text], "protocol": text, "config": text, "environment": {text: text}}
    data["budget"] |= {"first": text, "unit": text}
    data["left_out"] = {text: text, "knn": text}
    for arm in data["arms"]:
        arm |= {"label": text, "differences": [[text, text, text]]}
        arm["runs"][1]["failed"] = text
        for column in (*arm["mask_pictures"], *arm["reconstructions"]):
            column["title"] = text
    page = check_safe(render(data, whole.folder))
    if len(text) < 200 and "\udcff" not in text:
        assert "".join(page.text).count(text) >= 30


def test_a_picture_outside_the_runs_is_not_read(whole: Comparison, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")
    data = data_of(whole)
    for arm in data["arms"]:
        for column in arm["mask_pictures"]:
            column["files"] = ["../../../../secret.png", str(tmp_path / "secret.png")]
    html = render(data, whole.folder)
    check_safe(html)
    assert "Masks along the run" not in html


def test_the_first_runs_alone_make_a_page(whole: Comparison) -> None:
    data = data_of(whole)
    data |= {"done": 0, "untrained": None, "protocol": ""}
    for arm in data["arms"]:
        arm |= {"summary": {}, "against": {}, "mask_pictures": [], "reconstructions": []}
        for run in arm["runs"]:
            run |= {"values": {}, "curve": [], "finished": False}
    html = render(data, whole.folder)
    page = check_safe(html)
    assert "Not finished: 0 of 9 runs" in " ".join(page.text)
    assert "No run of both under the same seed is finished." in " ".join(page.text)


def test_without_results_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results"):
        write(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError):
        write(tmp_path)


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = find()
    if binary is None:
        pytest.skip(f"no browser on PATH: {' or '.join(NAMES)}")
    with Browser(binary, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


ROWS = "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[0].textContent)"
HEADERS = "[...document.querySelectorAll('table.sortable thead th')]"


def test_the_table_sorts_by_click_and_by_key(browser: Browser, whole: Comparison) -> None:
    browser.show(whole.report)
    assert browser.run(ROWS) == ["1 uniform", "2 uniform ratio=0.25", "3 ramped", "weights at the start"]
    titles = browser.run(f"{HEADERS}.map(header => header.textContent)")
    column = titles.index("masked loss at 0.9")
    button = f"{HEADERS}[{column}].querySelector('button')"
    assert browser.run(f"{HEADERS}[{column}].getAttribute('aria-sort')") is None
    browser.run(f"{button}.click()")
    losses = {f"{n} {arm['label']}": arm["summary"]["loss@0.9"]["mean"] for n, arm in enumerate(whole.data["arms"], 1)}
    losses["weights at the start"] = whole.data["untrained"]["loss@0.9"]
    rising = sorted(losses, key=lambda name: losses[name])
    assert browser.run(ROWS) == rising
    assert browser.run(f"{HEADERS}[{column}].getAttribute('aria-sort')") == "ascending"
    assert "lowest first" in browser.run("document.querySelector('[role=status]').textContent")

    browser.run(f"{button}.focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    assert browser.run(ROWS) == rising[::-1]
    assert browser.run(f"{HEADERS}[{column}].getAttribute('aria-sort')") == "descending"
    assert browser.run(f"{HEADERS}.filter(header => header.hasAttribute('aria-sort')).length") == 1

    speed = titles.index("samples per second")  # the weights at the start have none: last, whichever way
    for _ in range(2):
        browser.run(f"{HEADERS}[{speed}].querySelector('button').click()")
        assert browser.run(ROWS)[-1] == "weights at the start"
    browser.run(f"{HEADERS}[0].querySelector('button').click()")
    assert browser.run(ROWS) == ["1 uniform", "2 uniform ratio=0.25", "3 ramped", "weights at the start"]
    assert browser.said == []


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, False), (390, True)])
def test_nothing_runs_over_the_edge_and_nothing_is_logged(
    browser: Browser, whole: Comparison, width: int, dark: bool
) -> None:
    browser.show(whole.report, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(251, 251, 250)")
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.said == []


def test_hostile_names_do_nothing_in_a_browser(browser: Browser, whole: Comparison, tmp_path: Path) -> None:
    data = data_of(whole)
    for arm, text in zip(data["arms"], HOSTILE, strict=False):
        arm["label"] = text
    data["name"] = "<script>document.title = 'taken'</script>"
    (tmp_path / "page.html").write_text(render(data, whole.folder), "utf-8")
    browser.show(tmp_path / "page.html")
    assert "taken" not in browser.run("document.title").replace(data["name"], "")
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.images.length") == browser.run("document.querySelectorAll('.strip img').length")
    assert browser.said == []


def test_the_policy_forbids_any_other_script(browser: Browser, whole: Comparison, tmp_path: Path) -> None:
    html = whole.report.read_text("utf-8").replace("<h1>", "<script>document.title = 'taken'</script><h1>")
    (tmp_path / "page.html").write_text(html, "utf-8")
    browser.show(tmp_path / "page.html")
    assert browser.run("document.title") != "taken"
    assert json.dumps(browser.said).count("Content Security Policy") >= 1
    browser.said.clear()
