"""How a command ends that failed: what is printed of its error, and the exit code."""

from __future__ import annotations

import sys
from typing import Any

import typer

from maskedmodel.cli.output import print_error
from maskedmodel.errors import MaskedModelError, out_of_memory

_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # click's, which newer versions of typer keep inside


def report(error: BaseException) -> int:
    """Print the error; returns the exit code."""
    if isinstance(error, MaskedModelError):
        print_error("Error", str(error))
        return 2
    if isinstance(error, _UsageError):
        message = error.format_message()
        if "option" in message and "." in message.partition(":")[2]:
            message += " Settings are written without dashes, as KEY=VALUE."
        command = error.ctx.command_path if error.ctx is not None else "maskedmodel"
        print_error("Error", f"{message}\n  {command} --help tells more.")
        return 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        print_error("Stopped", "interrupted")
        return 130
    code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", None)
    if isinstance(code, int):
        if not isinstance(error, SystemExit):
            print_error("Stopped", str(error))
        return code
    name = type(error).__name__
    if out_of_memory(error):
        got = f"{name}: {' '.join(str(error).split())[:160]}"
        fix = "a smaller train.batch, train.accumulate=2 or more, larger tokens, or a smaller model need less."
        print_error("Error", f"There isn't enough memory.\n  got: {got}\n  to fix: {fix}")
        return 2
    if "maskedmodel.plugins" in sys.modules:  # else no plugin was asked
        from maskedmodel.cli.blame import blamed

        through = blamed(error)
        if through is not None:
            print_error("Error", str(through))
            return 2
    print_error("Failed", f"{name}: {' '.join(str(error).split())} (run with --debug for the traceback)")
    return 1
