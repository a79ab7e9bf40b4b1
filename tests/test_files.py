"""Files and folders that are written whole or not at all: what killed writers leave, and what living ones keep."""

from __future__ import annotations

import ast
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_image import cache
from maskedmodel_image.decode import Form
from PIL import Image

from maskedmodel import files
from maskedmodel.evaluation.canvas import save_png
from maskedmodel.evaluation.features import Features, save
from maskedmodel.files import folder_beside, remove_leftovers, replacing
from maskedmodel.training.checkpoint import write_text

ROOT = Path(__file__).parents[1]
WRITER = """
import sys
from pathlib import Path
from maskedmodel.files import folder_beside, replacing
with globals()[sys.argv[1]](Path(sys.argv[2])) as place:
    file = place if sys.argv[1] == "replacing" else (place / "part").open("wb")
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
    if sys.argv[1] == "folder_beside":
        place.rename(sys.argv[2])
"""


@contextmanager
def writer(target: Path, way: str = "replacing") -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of writing a target, and ends well once its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, way, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "written\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def killed(target: Path, way: str = "replacing") -> Path:
    """What a writer leaves that is killed while it writes."""
    before = set(target.parent.iterdir())
    with writer(target, way) as process:
        process.kill()
        process.wait()
    (left,) = set(target.parent.iterdir()) - before
    return left


def write(path: Path, content: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(content)


def test_the_next_writer_of_a_target_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target, other = tmp_path / "target.npz", tmp_path / "target.npz.b"
    target.write_bytes(b"old")
    left, stays = killed(target), killed(other)
    assert target.read_bytes() == b"old"
    write(target)
    assert target.read_bytes() == b"new"
    assert not left.exists()
    assert stays.read_bytes() == b"half"  # of another target: its own next writer removes it
    write(other)
    assert sorted(tmp_path.iterdir()) == [target, other]


def test_leftovers_go_before_the_disk_is_needed(tmp_path: Path) -> None:
    left = killed(tmp_path / "target")
    with replacing(tmp_path / "target"):
        assert not left.exists()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_living_writer_keeps_its_file(tmp_path: Path, stopped: bool) -> None:
    target = tmp_path / "target"
    with writer(target) as process:
        if stopped:
            process.send_signal(signal.SIGSTOP)
        write(target)
        remove_leftovers(tmp_path)
        (own,) = tmp_path.glob(".*")
        assert (own.read_bytes(), target.read_bytes()) == (b"half", b"new")
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert target.read_bytes() == b"half"  # the last one to end wins
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_of_this_process_keeps_its_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "target") as first:
        write(tmp_path / "target", b"second")
        first.write(b"first")
    assert (tmp_path / "target").read_bytes() == b"first"


def test_folders_follow_the_same_rule(tmp_path: Path) -> None:
    target = tmp_path / "export"
    left = killed(target, "folder_beside")
    assert (left / "part").read_bytes() == b"half"
    with writer(target, "folder_beside") as process:
        assert not left.exists()
        with folder_beside(target):
            assert len(list(tmp_path.iterdir())) == 2  # that of the living writer, and its own
        remove_leftovers(tmp_path)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "part").read_bytes() == b"half"


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = files._new_file, []

    def met(path: Path) -> int:
        descriptor = real(path)
        made.append(path)
        if len(made) == 1:
            remove_leftovers(tmp_path)
        return descriptor

    monkeypatch.setattr(files, "_new_file", met)
    write(tmp_path / "target")
    assert len(made) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_file_that_another_one_is_looking_at_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = files._new_file, []

    def met(path: Path) -> int:
        descriptor = real(path)
        made.append(path)
        if len(made) == 1:
            monkeypatch.setattr(files, "_held", os.open(path, os.O_RDWR), raising=False)
            fcntl.flock(files._held, fcntl.LOCK_EX)  # type: ignore[attr-defined]
        return descriptor

    monkeypatch.setattr(files, "_new_file", met)
    write(tmp_path / "target")
    assert len(made) == 2
    os.close(files._held)  # type: ignore[attr-defined]
    assert (tmp_path / "target").read_bytes() == b"new"


def test_without_locks_files_are_written_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = killed(tmp_path / "target")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(tmp_path / "target")
    remove_leftovers(tmp_path)
    assert (tmp_path / "target").read_bytes() == b"new"
    assert left.read_bytes() == b"half"


@pytest.mark.parametrize("name", ["a" * 255, "\u6e2c" * 85, "a" * 250 + ".csv", "[x]*?.npz", os.fsdecode(b"\xff\xfe")])
def test_names_of_any_length_and_letters(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    left = killed(target)
    write(target)
    assert not left.exists()
    assert os.listdir(tmp_path) == [name]


def test_long_names_that_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    left = killed(tmp_path / ("a" * 250 + "b"))
    write(tmp_path / ("a" * 250 + "c"))
    assert left.exists()


def test_only_files_and_folders_are_leftovers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".pipe.writing")
    (tmp_path / ".link.writing").symlink_to(tmp_path)
    (tmp_path / ".file.writing").touch()
    (tmp_path / "seen.writing").touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".link.writing", ".pipe.writing", "seen.writing"]


def image_cache(folder: Path, name: str) -> None:
    cache.on_disk(lambda _: torch.zeros(3, 4, 4, dtype=torch.uint8), ["a"], Form((3, 4, 4), "uint8"), folder, "train",
                  name.removeprefix("train-").removesuffix(".npy"), 300)  # fmt: skip


FEATURES = Features(torch.ones(2, 3), torch.tensor([0, 1]), ("a", "b"), ("a", "b"))
CALLERS: dict[str, Callable[[Path], object]] = {
    "features.npz": lambda path: save(FEATURES, path),
    "features.csv": lambda path: save(FEATURES, path),
    "features.parquet": lambda path: save(FEATURES, path),
    "picture.png": lambda path: save_png(Image.new("RGB", (2, 2)), path),
    "config.yaml": lambda path: write_text(path, "a: 1\n"),
    "train-key.npy": lambda path: image_cache(path.parent, path.name),
}


@pytest.mark.parametrize("name", CALLERS)
def test_whoever_writes_a_file_keeps_the_rule(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    left = killed(target)
    with writer(target) as living:
        CALLERS[name](target)
        assert not left.exists()
        assert living.poll() is None
        assert len(list(tmp_path.glob(".*.writing"))) == 1
    assert target.stat().st_size


def test_nobody_else_renames_files() -> None:
    """Whoever wants a file whole or not at all has one way to get it."""
    allowed = {"maskedmodel/files.py", "maskedmodel/training/checkpoint.py", "maskedmodel/weights/export/write.py"}
    found = set()
    for path in [*(ROOT / "maskedmodel").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                one = len(node.args) == 1 and not node.keywords  # str.replace takes two, dataclasses.replace names
                on_os = isinstance(node.func.value, ast.Name) and node.func.value.id in ("os", "shutil")
                if (node.func.attr in ("rename", "replace") and (one or on_os)) or node.func.attr == "move":
                    found.add(str(path.relative_to(ROOT)))
    assert found <= allowed
