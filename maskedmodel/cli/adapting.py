"""The verbs of whoever has labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskedmodel.cli.arguments import Run, apart, existing_run, split
from maskedmodel.cli.output import print_result


def finetune(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN | WEIGHTS | CONFIG [KEY=VALUE ...]",
            help="The folder of a run, weights that `import` reads, or a YAML file, and settings such as "
            "task.name=regress or data.path=photos.",
            show_default=False,
        ),
    ],
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Folder of the run. Default: runs/NAME-finetune.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="N,N%,...",
            help="Labelled training samples to use. Several, or several seeds, give a curve.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How often each is done.")] = 1,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="From fresh weights; of a curve: each beside the same from fresh weights."),
    ] = False,
    no_twin: Annotated[bool, typer.Option("--no-twin", help="Leave out the same training from fresh weights.")] = False,
) -> None:
    """Adapt an encoder to labels, beside the same from scratch. The same command again resumes."""
    source, overrides = split(arguments)
    if source is None:
        raise typer.BadParameter("Say what to fine-tune: a run, weights or a config.")
    counts = [int(text) if text.isdigit() else text for text in (labels or "").replace(" ", "").split(",") if text]
    from maskedmodel import commands

    print_result(
        commands.finetune(
            source,
            run=run,
            overrides=overrides,
            labels=counts,
            seeds=seeds,
            scratch=from_scratch,
            twin=not no_twin,
        )
    )


def predict(
    run: Run,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES | FOLDER [KEY=VALUE ...]",
            help="Files of one sample each, the path of other data, or train or val of the run's own, and settings "
            "that say how to read it.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write: .parquet or .csv.")],
) -> None:
    """Write what a fine-tuned model says of data to a file. The same command after a kill goes on."""
    files, overrides = apart(data)
    if not files:
        raise typer.BadParameter("Say what to predict: files, a folder, train or val.")
    existing_run(run)
    from maskedmodel import commands

    print_result(commands.predict(run, files, to=to, overrides=overrides))
