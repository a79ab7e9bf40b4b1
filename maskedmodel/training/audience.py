"""The callbacks of a run as the loop sees them: they are shown what it records, and may ask it to stop.

They look on in the leading rank alone, and a wish to stop is shared over all ranks at the step at which it is made, so
that several ranks stop where one process would. At a resume nothing is read back for them but metrics.jsonl.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from maskedmodel.callbacks import Moment, RunEnd, RunStart
from maskedmodel.config.build import Listed
from maskedmodel.config.sections import RunConfig, Trained
from maskedmodel.errors import MaskedModelError, PluginError
from maskedmodel.training.checkpoint import write_text
from maskedmodel.training.distributed import World
from maskedmodel.training.interrupt import Interrupted

log = logging.getLogger("maskedmodel")
_FILE = "stopped.json"
_HOOKS = {"step": "on_step", "validation": "on_validation", "look": "on_look"}
Seen = Literal["step", "validation", "look"]
Outcome = Literal["finished", "stopped", "interrupted", "failed"]


@dataclass(frozen=True)
class Stopped:
    """Who asked a run to stop before its last step, with which settings, and why."""

    step: int
    steps: int
    by: str
    settings: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"at step {self.step:,} of {self.steps:,} by {self.by}: {self.why}"

    @property
    def advice(self) -> str:
        """How to go on."""
        return f"change the settings of {self.by}, or leave it out (callbacks=[] leaves out all), in the same command"

    def write(self, folder: Path) -> None:
        write_text(folder / _FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def of(cls, values: object) -> Stopped | None:
        """That of JSON values; None where they are none."""
        kinds = {"step": int, "steps": int, "by": str, "settings": dict, "why": str}
        if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != kinds:
            return None
        return cls(**values)

    @classmethod
    def read(cls, folder: Path) -> Stopped | None:
        """The one in a run's folder; None where there is none, or none that can be read."""
        try:
            return cls.of(json.loads((folder / _FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return None


class _Run(Protocol):
    """What is asked of a run here."""

    config: Trained
    folder: Path
    step: int
    stopped: Stopped | None


def kind_of(line: Mapping[str, Any]) -> Seen:
    """What a line of metrics.jsonl tells of."""
    return "validation" if "val_loss" in line else "look" if "rankme" in line else "step"


class Audience:
    """The callbacks that are still there. `whole` says why nobody may stop this run, where that is so."""

    def __init__(self, callbacks: Sequence[Listed], world: World, steps: int, whole: str | None = None) -> None:
        self.live = list(callbacks) if world.leads else []
        self.world, self.steps, self.whole = world, steps, whole
        self._some = bool(callbacks)  # on every rank alike, whoever was left out since
        self._asked: list[Stopped] = []
        self._last: Mapping[str, float] = {}  # what the last validation measured
        self._told: set[str] = set()

    def standing(self, run: _Run) -> Stopped | None:
        """The stop at which a resumed run stands, while the one who asked for it is still listed as it was."""
        found = Stopped.read(run.folder) if self.world.leads and self.whole is None else None
        if found is not None and (found.step != run.step or found.step >= self.steps):
            (run.folder / _FILE).unlink()  # of a time that the run has left, forwards or back
            found = None
        if found is not None and found.settings in [each.model_dump(mode="json") for each in run.config.callbacks]:
            log.warning("The run was stopped %s. Nothing more is trained. To go on, %s.", found, found.advice)
        elif found is not None:
            log.warning("The run was stopped %s. That is no longer among its callbacks, so it goes on.", found)
            found = None
        return next(iter(self._shared([] if found is None else [found])), None)

    @contextmanager
    def attending(self, run: _Run, kept: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """The callbacks begin, `kept` lines of metrics are shown again to those that recall, and at last they end.

        Raises what a needed one raises on purpose as it begins.
        """
        if run.stopped is not None:
            self.live = []  # nothing is going to happen
        began: list[Listed] = []

        def end(outcome: Outcome, why: str = "") -> None:
            for one in [each for each in began if each in self.live]:
                self._calls(one, "on_end", RunEnd(run.step, self.steps, outcome, why, self._last))

        try:
            for one in list(self.live):
                kind: Literal["pretrain", "finetune"] = "pretrain" if isinstance(run.config, RunConfig) else "finetune"
                about = RunStart(run.folder, run.config.model_dump(mode="json"), kind, run.step, self.steps)
                if self._calls(one, "on_start", about):
                    began.append(one)
            self._recall(run.step, kept)
            yield
        except (Interrupted, KeyboardInterrupt) as error:
            end("interrupted", str(error))
            raise
        except BaseException as error:
            end("failed", str(error).partition("\n")[0])
            raise
        if run.stopped is None:
            if self.world.leads:
                (run.folder / _FILE).unlink(missing_ok=True)  # of a stop after which it went on
            end("finished")
        else:
            end("stopped", f"{run.stopped.by}: {run.stopped.why}")

    def show(self, kind: Seen, step: int, figures: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """What was just recorded of a step."""
        if kind == "validation":
            self._last = dict(figures)
        for one in list(self.live):
            self._calls(one, _HOOKS[kind], Moment(step, self.steps, figures, timings))

    def wish(self) -> Stopped | None:
        """The first wish to stop since the last call, on every rank the same."""
        asked, self._asked = self._asked, []
        found = next(iter(self._shared(asked[:1])), None)
        if found is None or self.whole is None:
            return found
        if self.world.leads and found.by not in self._told:
            self._told.add(found.by)
            log.warning("%s asks to stop at step %d (%s). %s", found.by, found.step, found.why, self.whole)
        return None

    def _shared(self, found: list[Stopped]) -> list[Stopped]:
        return self.world.joined(found) if self._some else []

    def _recall(self, step: int, kept: Sequence[Mapping[str, Any]]) -> None:
        """A wish of an earlier step was heard then, or the run was meant to go on; one of this step may not have been,
        where the process was killed before it could write it down.
        """
        for line in kept:
            kind, at = kind_of(line), line["step"]
            figures = {name: value for name, value in line.items() if name != "step"}
            if kind == "validation":
                self._last = figures
            for one in [each for each in self.live if each.callback.recalls]:
                self._calls(one, _HOOKS[kind], Moment(at, self.steps, figures, again=True))
            if at < step:
                self._asked.clear()

    def _calls(self, one: Listed, method: str, value: RunStart | Moment | RunEnd) -> bool:
        """Whether the callback took it; one that fails is told of once, and left out from there on."""
        settings = one.callback.settings
        try:
            said = getattr(one.callback, method)(value)
            if isinstance(value, Moment) and said is not None:
                why = reason(said, method)
                self._asked.append(
                    Stopped(value.step, self.steps, settings.name, settings.model_dump(mode="json"), why)
                )
        except (Exception, SystemExit) as error:
            self.live.remove(one)
            if method == "on_start" and one.needed and isinstance(error, MaskedModelError):
                where = one.where if error.where is None else f"{error.where}, in {one.where}"
                raise type(error)(
                    error.what, where=where, expected=error.expected, got=error.got, fix=error.fix
                ) from error
            told = error.what if isinstance(error, MaskedModelError) else f"{type(error).__name__}: {error}"
            log.warning("Callback %s (%s) failed in %s and is left out: %s", settings.name, one.where, method, told)
            return False
        return True


def reason(said: object, method: str) -> str:
    """Why a callback asks to stop, on one line. Raises PluginError where what it returned is no reason."""
    if not isinstance(said, str) or not said.strip():
        raise PluginError(
            f"{method} returned neither None nor why to stop.", expected="None, or a text", got=repr(said)[:100]
        )
    return " ".join(said.split())
