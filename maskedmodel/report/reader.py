"""What a run folder holds, as far as it is there. Anything may be missing: a run that still trains has half of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maskedmodel.config.files import read_config
from maskedmodel.errors import DataError, MaskedModelError
from maskedmodel.evaluation.judged import OUTCOME, TWIN, Judged
from maskedmodel.evaluation.probes import ProbeResult
from maskedmodel.training.audience import Stopped
from maskedmodel.training.tracking import damaged_lines, read_lines

_PLAIN, _MOST, _ROOM = 300_000, 450_000, 1_000_000  # bytes: kept as it is, one picture, all pictures
_SIDE = 2400  # pixels: what a larger picture is shrunk to
_MEDIA_ROOM = 3_000_000  # bytes of what moves or sounds
_MEDIA = {".gif": "image/gif", ".webp": "image/webp", ".wav": "audio/wav"}


@dataclass(frozen=True)
class Picture:
    """A picture to embed: `about` what its PNG text says, `data` None where there was no room left."""

    name: str
    kind: str
    data: bytes | None
    about: str = ""


@dataclass(frozen=True)
class Media:
    """What moves or sounds, to embed: `name` relative to the folder of pictures; `data` None where it had no room."""

    name: str
    kind: str
    data: bytes | None


@dataclass
class RunData:
    """The parts of a run. `unreadable` says what was there and could not be read, and why."""

    run: Path
    config_text: str = ""
    config: dict[Any, Any] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    watched: list[dict[str, Any]] = field(default_factory=list)  # looks at the encoder while it trained
    environment: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    probe: ProbeResult | None = None
    judged: tuple[Judged, int] | None = None  # how a fine-tuned model does, and of how many labelled samples
    twin: tuple[Judged, int] | None = None  # the same from scratch
    other_probes: list[ProbeResult] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)  # what the data was taken for, notices first
    pictures: list[Picture] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    start: list[tuple[str, str]] = field(
        default_factory=list
    )  # what the run's weights began with, and what became of it
    unreadable: list[str] = field(default_factory=list)

    @property
    def finetuned(self) -> bool:
        """Whether this is a fine-tuning run."""
        return "task" in self.config

    @property
    def step(self) -> int:
        """The last step that metrics tell of."""
        return int(max((line["step"] for line in self.training + self.validation), default=0))

    @property
    def steps(self) -> int | None:
        """The steps of the whole run, where its config says."""
        train = self.config.get("train")
        total = train.get("steps") if isinstance(train, dict) else None
        return total if isinstance(total, int) else None

    @property
    def stopped(self) -> Stopped | None:
        """Which callback ended the run before its last step, where the summary says so."""
        return Stopped.of(self.summary.get("stopped"))

    @property
    def baseline(self) -> float | None:
        """The loss of always predicting zero, where the summary has it."""
        value = self.summary.get("baseline")
        return float(value) if isinstance(value, int | float) else None


def read(run: Path) -> RunData:
    """Raises DataError where the folder is no run at all."""
    if not (run / "config.yaml").is_file() and not (run / "metrics.jsonl").is_file():
        raise DataError(
            "This is not the folder of a run.",
            where=run,
            expected="a folder with config.yaml and metrics.jsonl",
            got="neither" if run.is_dir() else "no such folder",
            fix="Name the folder that maskedmodel pretrain printed, such as runs/image-quickstart.",
        )
    data = RunData(run)

    def attempt(path: Path, reader: Callable[[Path], Any], default: Any) -> Any:
        if not path.is_file():
            return default
        try:
            return reader(path)
        except (OSError, ValueError, KeyError, TypeError, MaskedModelError) as error:
            data.unreadable.append(f"{path.relative_to(run)} can't be read ({type(error).__name__}).")
            return default

    data.config_text = attempt(run / "config.yaml", lambda path: path.read_text("utf-8"), "")
    data.config = attempt(run / "config.yaml", read_config, {})
    lines = attempt(run / "metrics.jsonl", _steps, [])
    data.training = [line for line in lines if "loss" in line]
    data.watched = [line for line in lines if "rankme" in line]
    data.validation = [line for line in lines if "val_loss" in line]
    data.timings = attempt(run / "timings.jsonl", _steps, [])
    for name in ("metrics.jsonl", "timings.jsonl"):
        if damaged := damaged_lines(run / name):
            data.unreadable.append(f"{name}: {damaged} damaged lines are left out")
    data.environment = attempt(run / "environment.json", _mapping, {})
    data.summary = attempt(run / "summary.json", _mapping, {})
    data.judged = attempt(run / OUTCOME, Judged.read, None)
    data.twin = attempt(run / TWIN / OUTCOME, Judged.read, None)
    data.probe = attempt(run / "probe.json", lambda path: ProbeResult.from_dict(_mapping(path)), None)
    for path in sorted(run.glob("probe-*.json")):
        other = attempt(path, lambda path: ProbeResult.from_dict(_mapping(path)), None)
        data.other_probes += [] if other is None else [other]
    data.facts = attempt(run / "data.json", _facts, [])
    data.start = attempt(run / "start.json", _start, [])
    states = sorted((run / "checkpoints").glob("step-*/state.json"))
    if states:
        data.broken = attempt(states[-1], _broken, [])
    if data.summary:  # which knows what was found after the last checkpoint, too
        data.broken = list(dict.fromkeys([*data.broken, *attempt(run / "summary.json", _broken, [])]))
    room = _ROOM
    for path in sorted((run / "pictures").glob("*.png"), key=_newest_first):
        picture = attempt(path, _picture, None)
        if picture is None:
            continue
        if len(picture.data or b"") > room:
            picture = replace(picture, data=None)
        data.pictures.append(picture)
        room -= len(picture.data or b"")
    if data.pictures:
        data.media = attempt(run / "pictures" / data.pictures[0].name, _media, [])
    return data


def _steps(path: Path) -> list[dict[str, Any]]:
    """Lines in the order of steps."""
    return sorted(read_lines(path), key=lambda line: int(line["step"]))


def _mapping(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text("utf-8"))
    if not isinstance(values, dict):
        raise TypeError(f"{path.name} holds no mapping")
    return values


def _facts(path: Path) -> list[tuple[str, str]]:
    facts = sorted(_mapping(path)["facts"], key=lambda fact: not fact["notice"])
    return [(str(fact["about"]), str(fact["text"])) for fact in facts]


def _start(path: Path) -> list[tuple[str, str]]:
    kept = _mapping(path)
    counts = {name: len(kept[name]) for name in ("loaded", "converted", "fresh", "left_out")}
    tensors = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    rows = [("weights", Path(str(kept["source"])).name), ("tensors", tensors)]
    rows += [("converted", f"{name}: {how}") for name, how in kept["converted"].items()]
    rows += [("note", str(note)) for note in kept["notes"]]
    licence = (kept.get("origin") or {}).get("licence")
    return [*rows, *([("licence", str(licence))] if licence else [])]


def _broken(path: Path) -> list[tuple[str, str]]:
    kept = _mapping(path)
    parts = {"": kept.get("broken", []), "of val: ": kept.get("broken_val", [])}
    return [(f"{part}{one['id']}", str(one["reason"])) for part, samples in parts.items() for one in samples]


def _media(picture: Path) -> list[Media]:
    """What shows the samples of a picture in time, as far as there is room."""
    found, room = [], _MEDIA_ROOM
    for path in sorted(picture.with_suffix("").glob("*")):
        if path.suffix in _MEDIA:
            data = path.read_bytes()
            fits = len(data) <= room
            room -= len(data) if fits else 0
            found.append(Media(f"{path.parent.name}/{path.name}", _MEDIA[path.suffix], data if fits else None))
    return found


def _newest_first(path: Path) -> tuple[float, str]:
    return (-path.stat().st_mtime, path.name)


def _picture(path: Path) -> Picture:
    """A small PNG as it is; a large one, such as a grid of photographs, as a JPEG that fits."""
    from PIL import Image

    data = path.read_bytes()

    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        kind, about = "png", str(image.info.get("mode", ""))
        if len(data) > _PLAIN:
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            while True:
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=85)
                if buffer.tell() <= _MOST:
                    break
                small = small.resize((max(small.width * 3 // 4, 1), max(small.height * 3 // 4, 1)))
            kind, data = "jpeg", buffer.getvalue()
        else:
            image.verify()
    return Picture(path.name, kind, data, about)
