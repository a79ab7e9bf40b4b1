"""Makes the documentation site out of the Markdown files of this repository.

python docs/site.py [FOLDER]    writes it to FOLDER, by default build/site; any broken link ends with exit code 1

The pages are copied into one folder with everything that they show, so that their relative links hold there as they do
in a checkout. Needs the dependency group `docs`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = (".png", ".md", ".gif", ".svg")  # what a page may show; other files are named
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\(([^)\s#]*)(#[^)\s]*)?\)")
NAV = {
    "Start": "docs/start.md",
    "Pretrain": "docs/pretrain.md",
    "Modalities": {
        "What they share": "docs/modalities.md",
        "Images": "docs/readers/images.md",
        "Microscopy": "docs/readers/microscopy.md",
        "Recordings of many leads": "docs/readers/signals.md",
        "Hyperspectral cubes": "docs/readers/spectra.md",
        "Sound": "docs/readers/sound.md",
        "Text": "docs/readers/text.md",
        "Tables of time series": "docs/readers/timeseries.md",
        "Video": "docs/readers/video.md",
        "Labels and splits": "docs/readers/labels.md",
    },
    "Fine-tune": "docs/finetune.md",
    "Judge": "docs/judging.md",
    "Weights": "docs/weights.md",
    "Masks": {"Schedulers": "docs/masks.md", "Findings": "docs/masking.md"},
    "Plugins": {"Write a plugin": "docs/plugins/index.md"},
    "Reference": {"Settings": "docs/config.md", "Names": "docs/api.md"},
    "Troubleshooting": "docs/troubleshooting.md",
    "Reliability": "docs/reliability.md",
    "Design": "docs/design.md",
    "Changelog": "CHANGELOG.md",
    "Contributing": "CONTRIBUTING.md",
    "Security": "SECURITY.md",
}


def title(page: Path) -> str:
    """A page's first heading."""
    found = re.search(r"^# (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else page.stem


def pages() -> list[Path]:
    """Every page of the site, relative to the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(page.relative_to(ROOT) for page in found)


def navigation() -> dict[str, object]:
    """The menu: as above, and the pages of masks and plugins under theirs."""
    menu: dict[str, object] = {"maskedmodel": "index.md", **NAV}
    for name, folder in (("Masks", "docs/masks"), ("Plugins", "docs/plugins")):
        listed = {title(page): str(page.relative_to(ROOT)) for page in sorted((ROOT / folder).glob("*.md"))}
        menu[name] = {**NAV[name], **{text: page for text, page in listed.items() if "index" not in page}}  # type: ignore[dict-item]
    return menu


def links(text: str) -> Iterator[str]:
    """The local files that a page links to."""
    for _, target, _ in LINK.findall(text):
        if target and not target.startswith(("http:", "https:", "mailto:")):
            yield target


def staged(page: Path, wanted: set[Path]) -> str:
    """A page's text for the site; what it shows is added to `wanted`. Links to code and folders become their names."""
    known, text = set(pages()), (ROOT / page).read_text("utf-8")

    def settled(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if not target or re.match(r"https?:|mailto:", target):
            return match[0]
        path = ((ROOT / page).parent / target).resolve().relative_to(ROOT)
        if path.suffix not in SHOWN:
            return label[1:-1]
        if path == Path("README.md"):
            return f"{label}({'../' * (len(page.parts) - 1)}index.md{anchor})"
        if path not in known and (ROOT / path).is_file():  # else the builder names it
            wanted.add(path)
        return match[0]

    return LINK.sub(settled, text)


def toml(menu: object) -> str:
    """A menu as TOML: a list of tables of one entry each."""
    if isinstance(menu, dict):
        return "[" + ", ".join(f'{{ "{name}" = {toml(below)} }}' for name, below in menu.items()) + "]"
    return f'"{menu}"'


CONFIG = """\
[project]
site_name = "maskedmodel"
site_description = "Masked autoencoders for any signal that can be cut into tokens."
docs_dir = "pages"
site_dir = "site"
nav = {nav}

[project.theme]
font = false
features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]
"""


def build(to: Path) -> int:
    """The site in the folder `to`; the exit code of the builder, which refuses links that lead nowhere."""
    with tempfile.TemporaryDirectory() as name:
        work, wanted = Path(name), set[Path]()
        queue = pages()
        texts = {page: staged(page, wanted) for page in queue}
        while more := [path for path in wanted if path.suffix == ".md" and path not in texts]:
            texts |= {page: staged(page, wanted) for page in more}
        for page, text in texts.items():
            path = work / "pages" / ("index.md" if page == Path("README.md") else page)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for path in wanted - texts.keys():
            (work / "pages" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, work / "pages" / path)
        (work / "zensical.toml").write_text(CONFIG.format(nav=toml(navigation())), encoding="utf-8")
        done = subprocess.run(["zensical", "build", "--strict", "-f", "zensical.toml"], cwd=work)
        if done.returncode == 0:
            shutil.rmtree(to, ignore_errors=True)
            shutil.copytree(work / "site", to)
        return done.returncode


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"))
