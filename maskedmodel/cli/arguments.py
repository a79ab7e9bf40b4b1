"""The arguments that verbs share, and what can be said of them before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigAndOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG | KEY=VALUE",
        help="A YAML file or the name of a config that comes with maskedmodel, and settings to override, "
        "such as train.steps=500.",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
RunOrData = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run; with --encoder a config, too.")]
Probes = Annotated[
    str | None,
    typer.Option(
        "--probes",
        metavar="NAME[,...]",
        help="knn, linear, attentive, efficient, class_queries, layers, batchnorm, cls_mean, dense. Default: as the "
        "config says.",
        show_default=False,
    ),
]
Encoders = Annotated[
    list[Path] | None,
    typer.Option(
        "--encoder",
        metavar="FOLDER",
        help="A model of transformers or timm, or a run, to judge on the same data. Repeat it for more.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]",
        help="Settings to change, such as data.label=speaker or evaluate.protocol=folds.",
        show_default=False,
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE ... | KEY=VALUE ...]",
        help="Default: validation data. Settings say how files are read, such as data.name=tiff_folder.",
        show_default=False,
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to write the picture.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def is_override(argument: str) -> bool:
    """Whether an argument sets something. One with a separator before its first `=`, or that exists, is a path."""
    key, equals, _ = argument.partition("=")
    return bool(equals) and os.sep not in key and not os.path.lexists(argument)


def listed(text: str | None) -> list[str] | None:
    """Names between commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def apart(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Paths, and settings, which stand wherever they like."""
    paths = [argument for argument in arguments or () if not is_override(argument)]
    return paths, [argument for argument in arguments or () if is_override(argument)]


def split(arguments: list[str] | None) -> tuple[str | None, list[str]]:
    """Overrides stand wherever they like; the one other argument is the config or the data."""
    configs, overrides = apart(arguments)
    if len(configs) > 1:
        raise typer.BadParameter(f"expected one, got {', '.join(configs)}. Settings are KEY=VALUE.")
    return configs[0] if configs else None, overrides


def config_and_overrides(arguments: list[str] | None) -> tuple[str | None, list[str]]:
    """Config and overrides. Raises ConfigError for what can be seen before torch is imported."""
    from maskedmodel.config.early import check_early

    config, overrides = split(arguments)
    check_early(config, overrides)
    return config, overrides


def existing_run(run: Path) -> Path:
    """The run as given. Raises CheckpointError, before torch is imported, where there is none."""
    from maskedmodel.files import path_of
    from maskedmodel.weights.place import require_run

    folder = path_of(run)
    require_run(folder.parent.parent if folder.parent.name == "checkpoints" else folder)
    return run


def layer_number(text: str) -> int | Literal["last"]:
    """A layer as `maskedmodel.embed` takes it."""
    try:
        return int(text)
    except ValueError:
        if text == "last":
            return "last"
    raise typer.BadParameter(f"--layer is last or a whole number, such as 6 or -2, not {text!r}.")


def image_sizes(text: str | None) -> int | tuple[int, int] | None:
    """A number of pixels, or HEIGHTxWIDTH."""
    if text is None:
        return None
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise typer.BadParameter(f"--image-size is a number or HEIGHTxWIDTH, in pixels, not {text!r}.")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
