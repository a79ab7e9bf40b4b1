"""The verb of whoever must know which of several ways is the better one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskedmodel.cli.arguments import ConfigAndOverrides, Json, config_and_overrides
from maskedmodel.cli.output import print_json, print_result


def compare(
    context: typer.Context,
    arguments: ConfigAndOverrides = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            "--mask",
            metavar="NAME[:KEY=VALUE,...]",
            help="A mask scheduler to compare, such as uniform:ratio=0.5. Repeat it; the first is the reference.",
            show_default=False,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUE[,...]",
            help="Other settings to compare, such as model.decoder.depth=2. Repeat it; crossed with the masks.",
            show_default=False,
        ),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option("--controls", help="Add to each moving ratio a constant of equal mean and the way backwards."),
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of each; fewer than 3 give no verdict.")] = 3,
    budget: Annotated[
        str, typer.Option("--budget", help="What each may spend, as much as the first: flops, tokens, seconds, steps.")
    ] = "flops",
    score: Annotated[
        list[str] | None,
        typer.Option(
            "--score",
            metavar="NAME[,...]",
            help="What judges, such as knn,linear,attentive,layers,finetune:1%. Default: knn,linear.",
            show_default=False,
        ),
    ] = None,
    primary: Annotated[
        str | None,
        typer.Option("--primary", metavar="NAME", help="The one figure that the verdict on an arm is made by."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Folder. Default: runs/compare-<name of the config>.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Runs at a time. Default: one per CUDA device, else one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare mask schedulers under one budget, measured in one way. The same command again goes on."""
    config, overrides = config_and_overrides(arguments)
    from maskedmodel import commands

    result = commands.compare(
        config,
        mask or (),
        vary=vary or (),
        controls=controls,
        seeds=seeds,
        budget=budget,
        scores=score,
        primary=primary,
        run=run,
        jobs=jobs,
        overrides=overrides,
        strict_plugins=bool(context.parent and context.parent.params.get("strict_plugins")),
        quiet=as_json,
    )
    if as_json:
        print_json(result.data)
    else:
        print_result(result)
