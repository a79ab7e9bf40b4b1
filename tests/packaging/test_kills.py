"""benchmarks/kills.py counts what it killed, goes on where it was stopped, and sees what differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def kills(folder: Path, count: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--kills", str(count), "--jobs", "embed",
         "--work", str(folder / "work"), "--out", str(folder / "out")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )  # fmt: skip


@pytest.mark.slow
def test_kills_are_counted_and_differences_seen(tmp_path: Path) -> None:
    done = kills(tmp_path, 1)
    assert done.returncode == 0, done.stdout + done.stderr
    first = json.loads((tmp_path / "out/results.json").read_text())
    assert first["kills"] == sum(row["kills"] for row in first["hits"]) >= 1
    assert first["faults"] == []
    expected = tmp_path / "work/embed-straight.json"
    results, lengths = json.loads(expected.read_text())
    expected.write_text(json.dumps([{name: "another" for name in results}, lengths]))
    done = kills(tmp_path, first["kills"] + 1)
    assert done.returncode == 1
    second = json.loads((tmp_path / "out/results.json").read_text())
    assert second["rounds"] == first["rounds"] + 1
    assert [sitting["kills"] for sitting in second["sittings"]] == [first["kills"], second["kills"] - first["kills"]]
    assert len((tmp_path / "out/rounds.jsonl").read_text().splitlines()) == second["rounds"]
    assert second["faults"] == [f"round {first['rounds']}, embed: differs from the straight run: features.npz"]


def test_committed_figures_are_those_of_their_rounds() -> None:
    folder = ROOT / "benchmarks/results/kills"
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    told = json.loads((folder / "results.json").read_text())
    hits = Counter((one["job"], hit) for one in rounds for _, hit in one["kills"])
    assert [one["number"] for one in rounds] == list(range(told["rounds"]))
    assert {(row["job"], row["phase"]): row["kills"] for row in told["hits"] if row["kills"]} == hits
    assert told["kills"] == hits.total() == sum(sitting["kills"] for sitting in told["sittings"])
    assert told["faults"] == [
        f"round {one['number']}, {one['job']}: {fault}" for one in rounds for fault in one["faults"]
    ]
    table = (folder / "table.md").read_text()
    assert table.startswith(f"{hits.total()} kills in {len(rounds)} rounds, {len(told['faults'])} faults.")
