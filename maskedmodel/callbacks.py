"""What a callback is: it looks at a run on its way, may log, may ask it to stop, and touches nothing.

It is given figures and no model, on the leading rank alone, so a run with it equals one without it to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from maskedmodel.components import Component, S

__all__ = ["Callback", "Moment", "RunEnd", "RunStart"]


@dataclass(frozen=True)
class RunStart:
    """A run as it begins, or goes on.

    folder  the run's own, in which a callback may write files of its own.
    config  every setting, as JSON values: a copy.
    kind    whether it pretrains or fine-tunes.
    step    where it stands: 0, or the step of the checkpoint that it goes on from.
    steps   those of the whole run.
    """

    folder: Path
    config: Mapping[str, Any]
    kind: Literal["pretrain", "finetune"]
    step: int
    steps: int

    @property
    def name(self) -> str:
        """What the run is called: the name of its folder."""
        return self.folder.resolve().name


@dataclass(frozen=True)
class Moment:
    """What there is to see at one step.

    figures  what metrics.jsonl says of it, by name, read-only: the same on every machine and after every resume.
    timings  what depends on the machine (samples_per_second, data_wait, memory_mb); at a step alone.
    again    whether this was seen before, by a process that was stopped (`Callback.recalls`). Timings are empty then.
    """

    step: int
    steps: int
    figures: Mapping[str, float]
    timings: Mapping[str, float] = field(default_factory=dict)
    again: bool = False

    def __post_init__(self) -> None:
        for name in ("figures", "timings"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True)
class RunEnd:
    """How a run ended in this process.

    outcome  finished: all steps. stopped: a callback asked for it. interrupted: by a signal, and saved. failed: by an
             error.
    why      the reason, but for a finished one.
    figures  what the last validation measured, read-only.
    """

    step: int
    steps: int
    outcome: Literal["finished", "stopped", "interrupted", "failed"]
    why: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", MappingProxyType(dict(self.figures)))


class Callback(Component[S]):
    """Looks at a run. Built on every rank, and called on the leading one alone.

    A text that a look returns asks the run to stop and says why; None lets it go on. The run then ends well: it
    validates, saves, and says who asked. An exception leaves a callback out for the rest of the run, which is told once
    and stops nothing; but a MaskedModelError in `on_start`, such as for a library that isn't there, is for the user to
    mend, and nothing is trained. Open what must be open in `on_start`, since a callback is built more often than used.

    Attributes:
        recalls: whether a resumed run first shows again what it recorded up to its checkpoint, so that what a callback
            keeps in mind is the same as in a run that was never stopped. It needs no other state.
    """

    recalls: bool = False

    def on_start(self, run: RunStart) -> None:
        """Before the first step of this process."""

    def on_step(self, moment: Moment) -> str | None:
        """At each line of metrics, every `train.log_every` steps: loss, lr, grad_norm and others."""
        return None

    def on_validation(self, moment: Moment) -> str | None:
        """After a validation: val_loss, and what else was measured."""
        return None

    def on_look(self, moment: Moment) -> str | None:
        """After a look at the encoder (`evaluate.every`): knn, linear, rankme and others."""
        return None

    def on_end(self, end: RunEnd) -> None:
        """Once, however the run ends, if `on_start` went well: close what is open."""
