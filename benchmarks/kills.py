"""Kill commands at random moments, start them again, and hold what they leave against a run that nobody disturbed.

    python benchmarks/kills.py --kills 1000 [--jobs pretrain,finetune] [--until 23:00]

A thousand kills take hours, so they are made in sittings: rounds.jsonl in the folder of results holds every round there
ever was, and each call goes on from it until there are as many kills as asked for, or until the time. Of the jobs
named, the one with the fewest kills plays next.

A round starts a command again and again, each time to be killed by SIGKILL (the command and all its processes, but for
`compare-parent`), until it comes to its end. The moment is drawn at random within a phase that is drawn first, so that
short phases, such as the writing of a checkpoint, are hit as often as long ones. After every kill whatever was complete
before must still be there; at the end of the round every result must equal the straight run's, byte for byte. A kill
counts once its round has ended and was compared.

Commands run in processes that are forked from this one, where everything is imported already: a kill then costs no
second start of torch. Each job is one entry of JOBS: its command, and how its files tell what it does, what is complete
and what came of it. A command that makes a run takes `run_phase`, `run_complete` and `run_results`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import maskedmodel
from maskedmodel.cli.app import run_cli
from maskedmodel.files import WRITING
from maskedmodel.plugins import load_registry
from maskedmodel.training import checkpoint as checkpoints

# What commands import on their way, so that forked ones needn't.
WARM = (
    "torch._dynamo",
    "sklearn.linear_model",
    "sklearn.datasets",
    "PIL.Image",
    "PIL.ImageDraw",
    "maskedmodel.commands",
    "maskedmodel.comparison.compare",
    "maskedmodel.training.loop",
    "maskedmodel.adapting.run",
    "maskedmodel.adapting.predictions",
    "maskedmodel.commands.adapt",
    "maskedmodel.commands.predicting",
    "maskedmodel.weights.finetuned",
    "pyarrow.parquet",
    "sklearn.metrics",
    "maskedmodel.report.page",
)
ROOT = Path(__file__).resolve().parents[1]
STEPS = 120
SMALL = (
    "train.batch=16", "train.log_every=1", "train.precision=fp32", "train.device=cpu", "train.validation_samples=32",
    "train.validate_every=40", "train.checkpoint_every=3", f"train.steps={STEPS}", "train.keep_best=true",
    "model.encoder.dim=24", "model.encoder.depth=1", "model.decoder.dim=16", "model.decoder.depth=1",
    "evaluate.pictures=2", "evaluate.train_samples=100", "evaluate.val_samples=50", "evaluate.few_labels=[10]",
)  # fmt: skip
TUNED = (
    "train.batch=16", "train.log_every=1", "train.precision=fp32", "train.device=cpu", "train.validation_samples=32",
    "train.validate_every=40", "train.checkpoint_every=3", f"train.steps={STEPS}", "train.keep_best=true",
    "adapt.labels=100", "adapt.ema=0.9", "adapt.drop_path=0.1", "adapt.mixup=0.2",
)  # fmt: skip
MOST, MISSES = 16, 3  # kills in a round, and attempts that ended before their kill: then it may come to its end
EARLY, LATE = ("start", "training", "checkpoint"), ("start", "probes", "report")  # stages of a run
PATIENCE = 300  # seconds that a command may take


@dataclass(frozen=True)
class Job:
    """A command to be killed.

    command   its arguments, in a folder of its own; may draw settings that change no result.
    stages    the phases that kills are aimed at, stage by stage: what comes late is aimed at late, since it ends what
              is early.
    phase     which of them it is in, told by its files, given when this attempt began (as files tell time).
    complete  what is done for good, as numbers by name: none may ever become smaller.
    results   its results, as digests by name; what tells times is left out.
    alone     only the first of its processes is killed; the others notice, save and stop.
    """

    command: Callable[[Path, random.Random], list[str]]
    stages: tuple[tuple[str, ...], ...]
    phase: Callable[[Path, float], str]
    complete: Callable[[Path], dict[str, int]]
    results: Callable[[Path], dict[str, str]]
    alone: bool = False

    @property
    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(phase for stage in self.stages for phase in stage))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def touched(path: Path, since: float) -> bool:
    """Whether a file was written in this attempt."""
    try:
        return path.stat().st_mtime > since
    except OSError:
        return False


def without_times(path: Path) -> str:
    values = json.loads(path.read_text())
    return hashlib.sha256(json.dumps({k: v for k, v in values.items() if "seconds" not in k}).encode()).hexdigest()


def run_results(run: Path) -> dict[str, str]:
    """What a run leaves: its last checkpoint whole, the best one, metrics, probe, picture and an undamaged page."""
    last = checkpoints.newest(run)
    files = [*(last / name for name in (*checkpoints.FILES, "COMMITTED")), run / "metrics.jsonl"]
    files += [path for path in (run / "pictures/reconstruction.png", run / "checkpoints/best.json") if path.exists()]
    found = {str(path.relative_to(run)): digest(path) for path in files}
    for name in ("summary.json", "probe.json"):
        if (run / name).exists():
            found[name] = without_times(run / name)
    found["report.html"] = str((run / "report.html").read_text().rstrip().endswith("</html>"))
    found["leftovers"] = str(sorted(path.name for path in run.rglob(f".*{WRITING}")))
    return found


def newest_step(run: Path) -> int:
    """The step of the newest whole checkpoint; -1 where there is none. Raises where all are damaged."""
    found = checkpoints.find(run)
    return -1 if found is None else checkpoints.read_state(found)["step"]


def run_complete(run: Path) -> dict[str, int]:
    return {"newest checkpoint": newest_step(run)}


def run_phase(run: Path, since: float, last: str = "summary.json", looks: Sequence[str] = ("pictures",)) -> str:
    folder = run / "checkpoints"
    with suppress(OSError):
        if any(name.startswith(".step-") and touched(folder / name, since) for name in os.listdir(folder)):
            return "checkpoint"
    if touched(run / last, since):
        return "report"
    if (folder / f"step-{STEPS:08d}").exists() and (
        touched(folder / f"step-{STEPS:08d}", since) or any(touched(run / name, since) for name in looks)
    ):
        return "probes"
    return "training" if touched(run / "metrics.jsonl", since) else "start"


def compare_phase(folder: Path, since: float) -> str:
    runs = [path for path in folder.glob("runs/*/*") if path.is_dir()]
    phases = {run_phase(run, since, last="report.html", looks=("yardstick.json",)) for run in runs}
    for phase in ("checkpoint", "training", "probes"):
        if phase in phases and not (phase == "training" and "report" in phases and len(phases) == 1):
            return phase
    return "report" if touched(folder / "report.html", since) else "start"


def compare_results(folder: Path) -> dict[str, str]:
    found = {}
    for run in sorted(folder.glob("runs/*/*")):
        found |= {f"{run.relative_to(folder)}/{name}": value for name, value in run_results(run).items()}
    told = json.loads((folder / "results.json").read_text())
    found["runs done"] = f"{told['done']} of {told['total']}"
    return found


EMBEDDED = "features.npz"


def embed_phase(folder: Path, since: float) -> str:
    names = os.listdir(folder)
    return "writing" if any(name.endswith(WRITING) and touched(folder / name, since) for name in names) else "working"


def embed_complete(folder: Path) -> dict[str, int]:
    """The file is there whole, or not at all."""
    path = folder / EMBEDDED
    if path.exists():
        import numpy as np

        with np.load(path) as arrays:
            return {"features": len(arrays["feature"])}
    return {}


PREDICTED, SAMPLES = "predictions.parquet", 30_000


def noise(work: Path) -> Path:
    """Images to predict, enough of them for several pieces."""
    import numpy as np

    path = work / "noise.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).integers(0, 256, (SAMPLES, 16, 16), dtype=np.uint8))
    return path


def predict_phase(folder: Path, since: float) -> str:
    if embed_phase(folder, since) == "writing":
        return "writing"
    return "working" if any(touched(path, since) for path in pieces(folder)) else "start"


def pieces(folder: Path) -> list[Path]:
    return [*folder.glob(f".{PREDICTED}.*.pieces/*.npz")]


def predict_complete(folder: Path) -> dict[str, int]:
    """Whole pieces stay until the file is there; then it stays, whole."""
    if (folder / PREDICTED).exists():
        from pyarrow import parquet

        return {"rows": parquet.read_metadata(folder / PREDICTED).num_rows, "pieces": SAMPLES}
    return {"pieces": len(pieces(folder))}


def tuned_phase(run: Path, since: float) -> str:
    """Of the run, then of its twin, then of both reports."""
    twin = run / "from-scratch"
    if touched(twin / "data.json", since):
        if (twin / "outcome.json").exists():
            return "report"
        found = run_phase(twin, since, last="outcome.json", looks=("environment.json",))
        return {"start": "twin training", "probes": "twin predictions"}.get(found, f"twin {found}")
    found = run_phase(run, since, last="outcome.json", looks=("environment.json",))
    return {"report": "twin training", "probes": "predictions"}.get(found, found)


def tuned_results(run: Path) -> dict[str, str]:
    """As of any run, how well the model does, and the same of its twin from scratch."""
    found = run_results(run) | {name: digest(run / name) for name in ("outcome.json", "labels.json")}
    twin = run / "from-scratch"
    return found | ({f"twin/{name}": value for name, value in tuned_results(twin).items()} if twin.is_dir() else {})


JOBS: dict[str, Job] = {
    "pretrain": Job(
        lambda folder, draw: ["pretrain", "image-quickstart", "--run", str(folder), *SMALL,
                              f"train.workers={draw.choice((0, 0, 1))}"],
        (EARLY, LATE),
        run_phase,
        run_complete,
        run_results,
    ),
    "compare": Job(
        lambda folder, draw: ["compare", "image-quickstart", "--run", str(folder), "--mask", "uniform", "--mask",
                              "ramped", "--seeds", "1", "--jobs", "1", "--budget", "steps", *SMALL],
        (EARLY, LATE),
        compare_phase,
        lambda folder: {str(run.relative_to(folder)): newest_step(run) for run in folder.glob("runs/*/*")},
        compare_results,
    ),
    "embed": Job(
        lambda folder, draw: ["embed", str(folder.parent / "pretrain-straight"), "val", "--to", str(folder / EMBEDDED)],
        (("working", "writing"),),
        embed_phase,
        embed_complete,
        lambda folder: {EMBEDDED: digest(folder / EMBEDDED), "files": str(sorted(os.listdir(folder)))},
    ),
    "finetune": Job(
        lambda folder, draw: ["finetune", str(folder.parent / "pretrain-straight"), "--run", str(folder), *TUNED,
                              f"train.workers={draw.choice((0, 0, 1))}"],
        (EARLY, ("start", "predictions"), ("twin training", "twin checkpoint"), ("twin predictions", "report")),
        tuned_phase,
        lambda folder: {"run": newest_step(folder), "twin": newest_step(folder / "from-scratch")},
        tuned_results,
    ),
    "predict": Job(
        lambda folder, draw: ["predict", str(folder.parent / "finetune-straight"), str(noise(folder.parent)),
                              "--to", str(folder / PREDICTED), "data.name=array", "data.layout=NHW"],
        (("start", "working", "writing"),),
        predict_phase,
        predict_complete,
        lambda folder: {PREDICTED: digest(folder / PREDICTED), "files": str(sorted(os.listdir(folder)))},
    ),
}  # fmt: skip


JOBS["compare-parent"] = replace(JOBS["compare"], alone=True)


@dataclass
class Round:
    """What came of one: `kills` as (phase drawn, phase hit), and what differs from the straight run, or was lost.

    `sitting` is the line of sittings.jsonl that tells of the call that played it.
    """

    number: int
    job: str
    sitting: int = 0
    kills: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def start(arguments: Sequence[str], log: Path) -> int:
    """A command in a forked process, with a process group and a log of its own; returns its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        with suppress(OSError):
            os.setpgid(child, child)
        return child
    code = 70
    try:
        os.setsid() if os.getpgrp() != os.getpid() else None
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = run_cli(list(arguments))
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> int | None:
    """The exit code of a process, or None while it lives."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    with suppress(OSError):
        texts = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
        return [found for child in map(int, " ".join(texts).split()) for found in (child, *descendants(child))]
    return []


def watch(child: int, job: Job, folder: Path, since: float) -> Iterator[str]:
    """The phase of a command, time and again, until it ends. Raises RuntimeError where it fails or takes too long."""
    limit = time.monotonic() + PATIENCE
    while (code := ended(child)) is None:
        if time.monotonic() > limit:
            os.killpg(child, signal.SIGKILL)
            raise RuntimeError(f"{folder} takes more than {PATIENCE} s")
        yield job.phase(folder, since)
        time.sleep(0.0005)
    if code:
        raise RuntimeError(f"exit code {code}; see {folder}.log")


def straight(name: str, work: Path) -> tuple[dict[str, str], dict[str, float]]:
    """The results of a run that nobody disturbs, and how long it stays in a phase at a time, in seconds."""
    folder, kept = work / f"{name}-straight", work / f"{name}-straight.json"
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        since, spent, visits, before = time.time(), Counter[str](), Counter[str](), ("", time.monotonic())
        child = start(JOBS[name].command(folder, random.Random(0)), folder.with_suffix(".log"))
        for phase in watch(child, JOBS[name], folder, since):
            now = time.monotonic()
            spent[phase] += now - before[1]
            visits[phase] += phase != before[0]
            before = phase, now
        lengths = {phase: spent[phase] / visits[phase] for phase in spent}
        kept.write_text(json.dumps([JOBS[name].results(folder), lengths], indent=1))
    results, lengths = json.loads(kept.read_text())
    return results, lengths


def strike(job: Job, folder: Path, draw: random.Random, aim: str, lengths: Mapping[str, float]) -> str | None:
    """Start the command and kill it at a random moment of a phase; returns the phase hit, None where it ended first."""
    since, visits = time.time(), draw.randint(1, 6) if aim.endswith(("checkpoint", "training")) else 1
    delay = draw.random() * lengths.get(aim, 0.05)
    child, before, due = start(job.command(folder, draw), folder.with_suffix(".log")), "", None
    for phase in watch(child, job, folder, since):
        visits -= phase == aim and phase != before
        before = phase
        if visits <= 0 and due is None:
            due = time.monotonic() + delay
        if due is not None and time.monotonic() >= due:
            others = [] if job.alone else descendants(child)
            os.killpg(child, signal.SIGKILL)
            for other in others:  # workers of a comparison have sessions of their own
                with suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
                return None  # it had come to its end already
            time.sleep(0.05)  # the processes that it had started die beside it
            return job.phase(folder, since)
    return None


def play(number: int, name: str, work: Path, seed: int, sitting: int) -> Round:
    """One round."""
    job, found = JOBS[name], Round(number, name, sitting)
    expected, lengths = straight(name, work)
    draw, folder = random.Random(f"{seed}/{number}/{name}"), work / f"{name}-round"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.with_suffix(".log").unlink(missing_ok=True)
    try:
        complete: dict[str, int] = {}
        misses = 0
        while len(found.kills) < MOST and misses < MISSES:
            stage = job.stages[-1 if misses else len(found.kills) * len(job.stages) // MOST]
            aim = draw.choice(stage)
            hit = strike(job, folder, draw, aim, lengths)
            if hit is None:
                misses += 1
            else:
                found.kills.append((aim, hit))
            now = job.complete(folder)
            lost = [
                f"{key}: {value}, then {now.get(key)}" for key, value in complete.items() if now.get(key, -1) < value
            ]
            found.faults += [f"lost after kill {len(found.kills)} ({hit}): {what}" for what in lost]
            complete = now
        for _ in watch(start(job.command(folder, draw), folder.with_suffix(".log")), job, folder, time.time()):
            pass
        results = job.results(folder)
        differ = [key for key in sorted({*expected, *results}) if expected.get(key) != results.get(key)]
        found.faults += [f"differs from the straight run: {key}" for key in differ]
    except (RuntimeError, OSError, ValueError, KeyError, maskedmodel.MaskedModelError) as error:
        found.faults.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
    if found.faults:  # kept, to be looked at
        shutil.copytree(folder, work / f"{name}-fault-{number}", dirs_exist_ok=True)
        shutil.copy(folder.with_suffix(".log"), work / f"{name}-fault-{number}.log")
    return found


def revision() -> str:
    """Which version of the code runs, as git tells it; nothing where it can't."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "maskedmodel", "plugins", "benchmarks/kills.py")
    return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")


def sitting_of(options: argparse.Namespace) -> dict[str, str]:
    """What tells the figures of this call from those of others."""
    return {
        "command": f"python benchmarks/kills.py --kills {options.kills} --jobs {options.jobs} --seed {options.seed}",
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread",
        "maskedmodel": " ".join(filter(None, [maskedmodel.__version__, revision()])),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": date.today().isoformat(),
    }


def report(rounds: Sequence[Round], sittings: Sequence[Mapping[str, str]], out: Path) -> None:
    """results.json and table.md, written anew after every round."""
    hits = Counter((one.job, hit) for one in rounds for _, hit in one.kills)
    phases = [
        (name, phase)
        for name in JOBS
        for phase in dict.fromkeys([*JOBS[name].phases, *(p for n, p in hits if n == name)])
    ]
    each = [[one for one in rounds if one.sitting == number] for number in range(len(sittings))]
    about = {
        "kills": hits.total(),
        "rounds": len(rounds),
        "faults": [f"round {one.number}, {one.job}: {fault}" for one in rounds for fault in one.faults],
        "hits": [{"job": name, "phase": phase, "kills": hits[name, phase]} for name, phase in phases],
        "sittings": [
            {**told, "rounds": len(own), "kills": sum(len(one.kills) for one in own)}
            for told, own in zip(sittings, each, strict=True)
        ],
    }
    (out / "results.json").write_text(json.dumps(about, indent=1) + "\n")
    rows = "".join(f"| {name} | {phase} | {hits[name, phase]} |\n" for name, phase in phases if hits[name, phase])
    told = "".join(
        f"- {one['kills']} kills in {one['rounds']} rounds: `{one['command']}`; {one['machine']}, maskedmodel "
        f"{one['maskedmodel']}, torch {one['torch']}, Python {one['python']}, {one['system']}, {one['date']}\n"
        for one in about["sittings"]
    )
    (out / "table.md").write_text(
        f"{hits.total()} kills in {len(rounds)} rounds, {len(about['faults'])} faults.\n\n"
        f"| command | killed in | kills |\n|---|---|---|\n{rows}\nSittings, one after another:\n\n{told}"
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_line(path: Path, values: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=1000, help="in all sittings together")
    parser.add_argument("--jobs", default=",".join(JOBS), help="which play, the one with the fewest kills next")
    parser.add_argument("--until", help="no round begins after this time of the day, such as 23:00")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/kills", help="where runs lie")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/kills", help="where results lie")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for module in WARM:
        import_module(module)
    load_registry()
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    rounds = [Round(**line) for line in lines(options.out / "rounds.jsonl")]
    sittings, names, mine = lines(options.out / "sittings.jsonl"), options.jobs.split(","), sitting_of(options)
    if mine not in sittings:
        sittings.append(mine)
        add_line(options.out / "sittings.jsonl", mine)
    made = Counter({name: 0 for name in names})
    for one in rounds:
        made[one.job] += len(one.kills)
    while made.total() < options.kills and not (options.until and datetime.now().strftime("%H:%M") >= options.until):
        name = min(names, key=made.__getitem__)
        for other in ("pretrain", "finetune") if name == "predict" else ("pretrain",):
            straight(other, options.work)  # whose weights others take
        last = play(len(rounds), name, options.work, options.seed, sittings.index(mine))
        made[name] += len(last.kills)
        rounds.append(last)
        add_line(options.out / "rounds.jsonl", asdict(last))
        report(rounds, sittings, options.out)
        said = last.faults or "nothing lost"
        print(f"round {last.number} {name}: {len(last.kills)} kills, {made.total()} in all; {said}", flush=True)
    return int(any(one.faults for one in rounds))


if __name__ == "__main__":
    sys.exit(main())
