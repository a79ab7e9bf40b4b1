"""The command line: arguments only. Each verb calls one function, imported when the verb runs, so that help is quick.

Exit codes: 0 done, 1 failed, 2 user error, 130 interrupted, 143 terminated after saving.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import maskedmodel
from maskedmodel.cli import adapting, comparing, features
from maskedmodel.cli import plugins as plugin_commands
from maskedmodel.cli.arguments import (
    ConfigAndOverrides,
    Encoders,
    Files,
    Json,
    Out,
    Overrides,
    Probes,
    Run,
    RunOrData,
    apart,
    config_and_overrides,
    existing_run,
    image_sizes,
    is_override,
    listed,
)
from maskedmodel.cli.ending import report
from maskedmodel.cli.output import discard, flush_or_discard, plain_lines, print_json, print_result
from maskedmodel.cli.plugin_verbs import with_plugin_verbs
from maskedmodel.installed import spare_others
from maskedmodel.training.interrupt import remember_interrupts

_GLOBAL_FLAGS = ("--debug", "--strict-plugins")

app = typer.Typer(
    help="Masked autoencoders for any signal that can be cut into tokens.",
    rich_markup_mode=None,
    add_completion=False,
)
config_app = typer.Typer(help="Show a config, or the schema of all configs.", rich_markup_mode=None)
app.add_typer(plugin_commands.app, name="plugins")
app.add_typer(config_app, name="config")
app.command()(adapting.finetune)
app.command()(adapting.predict)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"maskedmodel {maskedmodel.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="Stop where a plugin is broken, instead of going on without it.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if strict_plugins:
        from maskedmodel.plugins import load_registry

        load_registry(strict=True)


@app.command()
def pretrain(
    context: typer.Context,
    arguments: ConfigAndOverrides = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Folder of the run. Default: runs/<name of the config>.")
    ] = None,
) -> None:
    """Pretrain a model. Without a CONFIG: image-quickstart. The same command again resumes."""
    config, overrides = config_and_overrides(arguments)
    from maskedmodel import commands

    strict = bool(context.parent and context.parent.params.get("strict_plugins"))
    print_result(commands.pretrain(config, run=run, overrides=overrides, strict_plugins=strict))


app.command()(comparing.compare)


@app.command()
def reconstruct(
    run: Run,
    files: Files = None,
    mode: Annotated[
        str | None,
        typer.Option("--mode", help="Where normalised predictions get their scale: oracle, visible-stats, or raw."),
    ] = None,
    out: Out = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Samples in the picture.")] = 8,
) -> None:
    """Draw samples: original, masked, reconstruction."""
    existing_run(run)
    from maskedmodel import commands

    named, settings = apart(files)
    print_result(commands.reconstruct(run, named, mode=mode, out=out, count=count, overrides=settings))


@app.command()
def probe(
    run: RunOrData,
    overrides: Overrides = None,
    probes: Probes = None,
    encoder: Encoders = None,
    as_json: Json = False,
) -> None:
    """k-NN, linear and other probes, against random weights and plain features."""
    stray = [argument for argument in overrides or () if not is_override(argument)]
    if stray:
        raise typer.BadParameter(f"expected one run, got {', '.join(stray)}, too. Settings are KEY=VALUE.")
    if not encoder:
        existing_run(run)
    from maskedmodel import commands

    result = commands.probe(
        run, overrides=overrides or (), probes=listed(probes), encoders=encoder or (), quiet=as_json
    )
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(result)


app.command()(features.embed)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A weights file or folder of another library.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Folder of the run to make.")] = None,
    heads: Annotated[int | None, typer.Option("--heads", min=1, help="Attention heads of the encoder.")] = None,
    decoder_heads: Annotated[
        int | None, typer.Option("--decoder-heads", min=1, help="Attention heads of the decoder.")
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="PIXELS", help="Image size: 224, or height x width as 192x256."),
    ] = None,
    normalise: Annotated[
        bool | None,
        typer.Option("--normalise/--raw", help="Whether the weights predict normalised or raw patches."),
    ] = None,
) -> None:
    """Read published weights and say what was found. The options settle what a file of weights doesn't say."""
    size = image_sizes(image_size)
    from maskedmodel import commands

    print_result(
        commands.import_weights(
            source, to=to, heads=heads, decoder_heads=decoder_heads, image_size=size, normalise=normalise
        )
    )


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="safetensors, huggingface, timm, onnx or torch.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write. Default: RUN/exports/TARGET.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="STEP", help="A step, or best. Default: the newest checkpoint."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Largest difference of an output that is accepted.")
    ] = 1e-4,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Upload the export to the hub, into a private repository."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let a repository that --push makes be public.")] = False,
) -> None:
    """Take a model out for another library, and see that it computes the same there."""
    existing_run(run)
    from maskedmodel import commands

    step = int(checkpoint) if checkpoint is not None and checkpoint.isdigit() else checkpoint
    print_result(commands.export(run, to, out=out, checkpoint=step, tolerance=tolerance, push=push, public=public))


@app.command()
def preview(arguments: ConfigAndOverrides = None, out: Out = None) -> None:
    """Draw tokens and masks without training."""
    config, overrides = config_and_overrides(arguments)
    from maskedmodel import commands

    print_result(commands.preview(config, overrides=overrides, out=out))


@app.command()
def doctor(arguments: ConfigAndOverrides = None, as_json: Json = False) -> None:
    """Look at the machine, the plugins and, where one is given, what a config would stumble over."""
    config, overrides = config_and_overrides(arguments)
    from maskedmodel import commands

    report = commands.doctor(config, overrides=overrides)
    if as_json:
        print_json(report)
    else:
        print("\n".join(plain_lines(report)))


@config_app.command("show")
def config_show(arguments: ConfigAndOverrides = None, as_json: Json = False) -> None:
    """The config with every default and override, as a run would save it."""
    config, overrides = config_and_overrides(arguments)
    from maskedmodel.config.load import dump_config, load_config
    from maskedmodel.plugins import load_registry

    resolved = load_config(config, overrides, registry=load_registry())
    if as_json:
        print_json(resolved.model_dump(mode="json"))
    else:
        print(dump_config(resolved), end="")


@config_app.command("schema")
def config_schema() -> None:
    """JSON Schema of a config with the installed plugins, for editors."""
    from maskedmodel.config import load
    from maskedmodel.plugins import load_registry

    print_json(load.config_schema(load_registry()))


def run_cli(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Errors are printed to standard error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with the stream closed, as in `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process is
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows ? for what it lacks
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    flags = [argument for argument in own if argument in _GLOBAL_FLAGS]  # welcome after the verb, too
    rest = [argument for argument in own if argument not in _GLOBAL_FLAGS] + arguments[len(own) :]
    try:
        command = with_plugin_verbs(app, rest)
        with command.make_context("maskedmodel", [*flags, *(rest or ["--help"])]) as context:
            command.invoke(context)
        sys.stdout.flush()
        flush_or_discard(sys.stderr)
    except typer.Exit as error:
        return error.exit_code
    except BaseException as error:  # noqa: BLE001 - each is printed and has its exit code
        if isinstance(error, BrokenPipeError) and _stdout_closed():
            return 1
        if "--debug" in flags:
            traceback.print_exc()
        return report(error)
    return 0


def _stdout_closed() -> bool:
    """Whether the reader of our output has gone, as `| head -1` does. Then it is pointed at nothing, for good."""
    try:
        print(flush=True)  # another pipe may have broken, such as a worker's
    except BrokenPipeError:
        discard(sys.stdout)
        return True
    return False


def main() -> None:
    """The console entry point."""
    spare_others()
    remember_interrupts()
    sys.exit(run_cli(sys.argv[1:]))
