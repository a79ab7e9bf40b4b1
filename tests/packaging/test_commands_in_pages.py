"""Every `maskedmodel ...` line of a page is one that the command line takes, with settings that a config has.

Those that are quick are run, too, in a folder that holds what the pages speak of; `parsed_only` says which aren't.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import click
import pytest
import torch
from PIL import Image

from maskedmodel.cli.app import app, run_cli
from maskedmodel.cli.plugin_verbs import with_plugin_verbs
from maskedmodel.config.early import check_early
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import load_registry
from tests.packaging import pages
from tests.packaging.pages import ROOT, fenced
from tests.runs import ENVIRONMENT, SMALL, command, pretrain
from tests.test_modalities import SMALLER

PAGES = [*pages.PAGES, *sorted((ROOT / "configs").glob("*.yaml"))]
# Where a line begins in an indented or fenced block, or in the comment that heads a config.
LINE = re.compile(r"^(?:#? {3,}|\$ )?(?:pip install uv && )?(?:uv run )?maskedmodel ([a-z-].*)$", re.MULTILINE)
WITHIN = re.compile(r"`maskedmodel ([a-z-][^`\n]*)`")  # in a sentence


def lines_of(text: str) -> list[str]:
    """The commands of a page, without the words two blanks away that explain them."""
    text = re.sub(r" *\\\n#? *", " ", text)
    blocks = "\n".join(part for part in re.findall(r"^```(?:bash|sh|console|)\n(.*?)^```", text, re.M | re.S))
    indented = "\n".join(line for line in text.splitlines() if re.match(r"#? {4}", line))
    found = LINE.findall(indented) + LINE.findall(blocks)
    return [re.split(r"\s{2,}", line)[0].rstrip() for line in found]


def mentions_of(text: str) -> list[str]:
    """The commands within sentences. A verb alone, such as `maskedmodel export`, is a name and no command."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        line for line in WITHIN.findall(text) if " " in line or line in ("--help", "--version", "doctor", "plugins")
    ]


COMMANDS = [(page, line) for page in PAGES for line in lines_of(page.read_text("utf-8"))]
# The changelog speaks of verbs as they were, so only its blocks are looked at.
PRESENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
MENTIONED = [(page, line) for page in PRESENT for line in mentions_of(page.read_text("utf-8"))]
VERBS = sorted({line for page in PRESENT for line in WITHIN.findall(page.read_text("utf-8")) if " " not in line})


def words_of(line: str) -> list[str]:
    return shlex.split(re.sub(r"\$\w+", "96", line))  # a variable of the shell: the horizon of a loop


def parsed(words: list[str]) -> tuple[click.Command, click.Context]:
    """The command that words lead to and what it made of them. Raises UsageError on an unknown verb or option."""
    command: click.Command = with_plugin_verbs(app, words)
    context = click.Context(command, info_name="maskedmodel")
    while hasattr(command, "commands") and words and not words[0].startswith("--"):
        name, *words = words
        child = command.get_command(context, name)
        if child is None:
            raise click.UsageError(f"no verb {name!r}")
        command, context = child, click.Context(child, parent=context, info_name=name)
    if words and words[0] in ("--help", "--version"):
        assert any(words[0] in option.opts for option in command.get_params(context)), words
    else:
        command.parse_args(context, words)
    return command, context


@pytest.mark.parametrize(
    ("page", "line"), [*COMMANDS, *MENTIONED], ids=[f"{page.name}: {line}" for page, line in [*COMMANDS, *MENTIONED]]
)
def test_a_command_of_a_page_can_be_typed(page: Path, line: str) -> None:
    words = words_of(line)
    parsed(words)
    changes = [word for word in words if re.match(rf"({'|'.join(RunConfig.model_fields)})(\.\S+)?=", word)]
    named = next((word for word in words[1:] if (ROOT / "configs" / f"{word}.yaml").exists()), None)
    if changes or named:
        check_early(named, changes)


def test_verbs_that_pages_name_are_there() -> None:
    assert {"compare", "export", "forecast"} <= set(VERBS)
    command = with_plugin_verbs(app, ["--help"])
    assert set(VERBS) <= {*command.list_commands(click.Context(command)), "--help"}  # type: ignore[attr-defined]


def parsed_only(words: list[str]) -> str | None:
    """Why a command isn't run by the tests, if it isn't."""
    if words[0] in ("pretrain", "compare", "finetune"):
        return "it trains as long as its config says; tests of commands and comparisons run both with few steps"
    if words[0] in ("import", "forecast"):
        return "it reads weights or a table that others publish"
    if "--encoder" in words:
        return "it reads a model that others publish; evaluation/test_encoders.py makes such ones"
    if "--push" in words:
        return "it uploads"
    if any(re.search(r"^[A-Z]+$", word) for word in words):
        return "a word in capitals stands for another one"
    if of_config(words) is not None and str(of_config(words)) not in SMALLER:
        return "a run of data that is published elsewhere"
    return None


def of_config(words: list[str]) -> str | None:
    """The config that ships of whose run a command speaks, if it does."""
    runs = [match[1] for word in words if (match := re.fullmatch(r"runs/([\w-]+)", word))]
    return next((run for run in runs if (ROOT / f"configs/{run}.yaml").exists()), None)


RUN = list(dict.fromkeys(line for _, line in [*COMMANDS, *MENTIONED] if parsed_only(words_of(line)) is None))
OWN_RUNS = sorted({name for line in RUN if (name := of_config(words_of(line)))})
QUICK = [line for line in RUN if of_config(words_of(line)) is None]
# The kit on a whole plugin, other libraries, probes that train: packaging/test_wheel.py, weights/test_export.py and
# evaluation/test_judging.py run these.
LONGER = re.compile(r"plugins check|probe .*--probes|export .*--to (huggingface|timm|onnx|torch)")
CASES = [pytest.param(line, marks=[pytest.mark.slow] if LONGER.match(line) else []) for line in QUICK]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with docs/pretrain.md's config as my.yaml, photos as it wants them, and runs of it of two steps."""
    folder = tmp_path_factory.mktemp("place")
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        path = folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (64, 64, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(path)
    Image.open(folder / "photos/cat/0.png").save(folder / "photo.jpg")
    (block,) = fenced(ROOT / "docs/pretrain.md", "yaml")
    (folder / "my.yaml").write_text(block, "utf-8")
    config = load_config(folder / "my.yaml", registry=load_registry())
    assert (config.data.name, config.tokenizer.name, config.train.steps) == ("image_folder", "image", 20000)
    arguments = ["data.val_share=0.3", "train.steps=2", "train.keep_best=true", "optim.warmup=0", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_cli(["pretrain", "my.yaml", *arguments]) == 0
        assert run_cli(["finetune", "runs/my", "train.steps=2", "optim.warmup=0", "--no-twin"]) == 0
    for name in ("mine", "image"):
        shutil.copytree(folder / "runs/my", folder / "runs" / name)
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the place, which is the working folder and the home folder."""
    folder = tmp_path / "here"
    shutil.copytree(place, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def written(words: list[str]) -> list[str]:
    """The files and folders that options of a command name."""
    paths = [after for option, after in pairwise(words) if option in ("--to", "--out", "--picture")]
    return [path for path in paths if "." in path or "-" in path or "/" in path]


def install(name: str, folder: Path) -> None:
    """What `pip install -e` does for a plugin that `plugins new` wrote: its entry points are found on the path."""
    source = folder / f"maskedmodel-{name}"
    project = (source / "pyproject.toml").read_text("utf-8")
    points = re.findall(r'^(\w+ = )"(maskedmodel_\w+[.\w]*)"$', project, re.MULTILINE)
    about = source / "src" / f"maskedmodel_{name}-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: maskedmodel-{name}\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[maskedmodel]\n" + "".join(f"{a}{b}\n" for a, b in points))


@pytest.mark.parametrize("line", CASES)
def test_a_quick_command_runs_as_printed(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("~", str(here)) for word in words_of(line)]
    if words[:2] == ["plugins", "check"]:
        assert run_cli(["plugins", "new", words[2]]) == 0
        install(words[2], here)
        environment = {**ENVIRONMENT, "PYTHONPATH": str(here / f"maskedmodel-{words[2]}/src")}
        done = subprocess.run(command(*words), cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"\n4\d checks, 0 failed", done.stdout)
        return
    code = run_cli(words)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert shown.out.strip()
    for path in written(words):
        assert (here / path).exists(), f"{line} wrote no {path}: {shown.out}"


@pytest.mark.slow
@pytest.mark.parametrize("config", OWN_RUNS)
def test_a_command_on_a_run_of_a_quickstart(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small run of that config."""
    monkeypatch.chdir(tmp_path)
    settings = ("train.steps=2", "optim.warmup=0", *SMALLER[config])
    pretrain(tmp_path / "runs" / config, *settings, config=config)
    for line in RUN:
        if of_config(words_of(line)) == config:
            assert run_cli(words_of(line)) == 0, line


def test_wrong_lines_are_seen() -> None:
    for line in ("pretrian", "pretrain --ru runs/x", "config shw image-quickstart", "embed"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|no verb"):
            parsed(shlex.split(line))
    with pytest.raises(ConfigError, match="stepz"):
        check_early("image-quickstart", ["train.stepz=3"])
    text = "a page\n\n    maskedmodel pretrain a.yaml \\\n        train.steps=3    what it does\n"
    assert lines_of(text) == ["pretrain a.yaml train.steps=3"]
    assert mentions_of("say `maskedmodel doctor my.yaml`, or `maskedmodel export`") == ["doctor my.yaml"]


def test_there_are_lines() -> None:
    assert len(COMMANDS) > 30
    assert {page.name for page, _ in COMMANDS} >= {"README.md", "masking.md", "image-quickstart.yaml"}
    verbs = {words_of(line)[0] for line in QUICK}
    assert verbs >= {"--help", "config", "plugins", "doctor", "preview", "probe", "reconstruct", "embed", "export"}
    assert OWN_RUNS == ["signals-quickstart", "text-quickstart", "timeseries-quickstart", "video-quickstart"]
