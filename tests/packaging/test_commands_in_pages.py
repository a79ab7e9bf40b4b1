"""Every `maskedmodel ...` line of a page is one that the command line takes, and its settings are those of a config."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from maskedmodel.cli.app import app
from maskedmodel.cli.plugin_verbs import with_plugin_verbs
from maskedmodel.config.early import check_early
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PAGES += sorted((ROOT / "configs").glob("*.yaml"))
# Where a line begins in an indented or fenced block, or in the comment that heads a config.
LINE = re.compile(r"^(?:#? {3,}|\$ )?(?:pip install uv && )?(?:uv run )?maskedmodel ([a-z].*)$", re.MULTILINE)


def lines_of(text: str) -> list[str]:
    """The commands of a page, without the words two blanks away that explain them."""
    text = re.sub(r" *\\\n#? *", " ", text)
    blocks = "\n".join(part for part in re.findall(r"^```(?:bash|sh|console|)\n(.*?)^```", text, re.M | re.S))
    indented = "\n".join(line for line in text.splitlines() if re.match(r"#? {4}", line))
    found = LINE.findall(indented) + LINE.findall(blocks)
    return [re.split(r"\s{2,}", line)[0].rstrip() for line in found]


COMMANDS = [(page, line) for page in PAGES for line in lines_of(page.read_text("utf-8"))]


def parsed(words: list[str]) -> tuple[click.Command, click.Context]:
    """The command that words lead to and what it made of them. Raises UsageError on an unknown verb or option."""
    command: click.Command = with_plugin_verbs(app, words)
    context = click.Context(command, info_name="maskedmodel")
    while hasattr(command, "commands"):
        name, *words = words
        child = command.get_command(context, name)
        if child is None:
            raise click.UsageError(f"no verb {name!r}")
        command, context = child, click.Context(child, parent=context, info_name=name)
    command.parse_args(context, words)
    return command, context


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page.name}: {line}" for page, line in COMMANDS])
def test_a_command_of_a_page_can_be_typed(page: Path, line: str) -> None:
    words = shlex.split(re.sub(r"\$\w+", "96", line))  # a variable of the shell: the horizon of a loop
    parsed(words)
    changes = [word for word in words if re.match(rf"({'|'.join(RunConfig.model_fields)})(\.\S+)?=", word)]
    named = next((word for word in words[1:] if (ROOT / "configs" / f"{word}.yaml").exists()), None)
    if changes or named:
        check_early(named, changes)


def test_wrong_lines_are_seen() -> None:
    for line in ("pretrian", "pretrain --ru runs/x", "config shw image-quickstart", "embed"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|no verb"):
            parsed(shlex.split(line))
    with pytest.raises(ConfigError, match="stepz"):
        check_early("image-quickstart", ["train.stepz=3"])
    text = "a page\n\n    maskedmodel pretrain a.yaml \\\n        train.steps=3    what it does\n"
    assert lines_of(text) == ["pretrain a.yaml train.steps=3"]


def test_there_are_lines() -> None:
    assert len(COMMANDS) > 30
    assert {page.name for page, _ in COMMANDS} >= {"README.md", "masking.md", "image-quickstart.yaml"}
