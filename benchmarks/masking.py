"""Keep what docs/masking.md tells of a comparison: its figures as a table, its results, and parts of its page.

    python benchmarks/masking.py runs/cifar10-ratios        into benchmarks/results/cifar10-ratios

It reads a finished comparison's folder. Pictures are cut out of its report.html with Chromium, which has to be on PATH.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.comparison.browser import Browser, find  # noqa: E402  the driver lives with the tests of the page

RESULTS = Path(__file__).parent / "results"
WIDTH = 1000

# What of the page is kept, by the heading of its section, and how it is laid out for a picture.
PARTS = {
    "curves": ("Along the run", ""),
    "masks": (
        "Masks along the run",
        """section { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
        section > p { grid-column: 1 / -1; }
        figure.gallery { margin: 0 !important; padding: 10px !important; } figcaption { display: none; }
        .strips { flex-wrap: nowrap !important; gap: 8px !important; } .strip { width: 88px !important; }
        .strip:not(:first-child):not(:nth-last-child(-n+2)) { display: none; }""",
    ),
    "reconstructions": ("Reconstructions of the same inputs", ""),
}


def table(data: dict[str, Any]) -> str:
    """Mean and deviation over seeds, and under it the difference to the first arm with its verdict."""
    metrics = [m for m in data["metrics"] if m["better"] and any(m["key"] in arm["summary"] for arm in data["arms"])]
    heads = ["", "steps", *(m["title"] for m in metrics)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for arm in data["arms"]:
        cells = [arm["label"], f"{arm['steps']:,}"]
        for metric in metrics:
            spread, against = arm["summary"][metric["key"]], arm["against"].get(metric["key"])
            cell = f"{spread['mean']:.{metric['digits']}f} ± {spread['deviation']:.{metric['digits']}f}"
            if against is not None:
                word = against["verdict"] if against["verdict"] in ("better", "worse") else "none seen"
                cell += f"<br>{against['mean']:+.{metric['digits']}f} {word}"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    if data.get("untrained"):
        values = [f"{data['untrained'][m['key']]:.{m['digits']}f}" for m in metrics]
        lines.append(f"| weights at the start | 0 | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def cut(browser: Browser, heading: str, style: str, path: Path) -> None:
    """A picture of one section of the page that is shown."""
    rectangle = browser.run(
        f"""(() => {{
            const own = [...document.querySelectorAll("section")];
            const one = own.find(s => s.querySelector("h2").textContent === {json.dumps(heading)});
            if (!one) return null;
            const sheet = document.createElement("style");
            sheet.id = "cut";
            sheet.textContent = ".off, section h2 {{ display: none !important }}" + {json.dumps(style)};
            document.getElementById("cut")?.remove();
            own.forEach(s => s.classList.toggle("off", s !== one));
            document.head.append(sheet);
            const r = one.getBoundingClientRect();
            return {{x: r.x - 8, y: r.y + scrollY - 8, width: r.width + 16, height: r.height + 16, scale: 1}};
        }})()"""
    )
    if rectangle is None:
        return
    shot = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=rectangle)
    path.write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a finished comparison")
    parser.add_argument("--to", type=Path, help="where to (default: benchmarks/results/NAME)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    target: Path = arguments.to or RESULTS / folder.name
    data = json.loads((folder / "results.json").read_text("utf-8"))
    if data["done"] != data["total"]:
        parser.error(f"{folder} isn't finished: {data['done']} of {data['total']} runs.")
    chromium = find()
    if chromium is None:
        parser.error("There is no chromium on PATH.")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "results.csv"):
        shutil.copyfile(folder / name, target / name)
    (target / "results.md").write_text(table(data), "utf-8")
    with tempfile.TemporaryDirectory() as profile, Browser(chromium, Path(profile)) as browser:
        browser.show(folder / "report.html", width=WIDTH)
        for name, (heading, style) in PARTS.items():
            cut(browser, heading, style, target / f"{name}.png")


if __name__ == "__main__":
    main()
