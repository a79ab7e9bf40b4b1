"""The verb of whoever takes features away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskedmodel.cli.arguments import Run, existing_run, layer_number, split
from maskedmodel.cli.output import print_result


def embed(
    run: Run,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA | KEY=VALUE",
            help="train or val of the run's own data, or the path of other data, and settings that say how to read it, "
            "such as data.name=image_folder.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write, such as features.parquet.")],
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            metavar="KIND",
            help="mean over the tokens, the class token, concat of the two, or tokens: a row for each. Default: the "
            "run's evaluate.pool.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        str,
        typer.Option("--layer", metavar="N", help="After which block: 1, 2, ..., or -1, -2, ... from the end."),
    ] = "last",
) -> None:
    """Write the features of data to a file."""
    chosen, overrides = split(data)
    if chosen is None:
        raise typer.BadParameter("Say what to embed: train, val or a path.")
    existing_run(run)
    from maskedmodel import commands

    print_result(
        commands.embed(run, chosen, to=to, overrides=overrides, pool=pool, layer=layer_number(layer))  # type: ignore[arg-type]
    )
