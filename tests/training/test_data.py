from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskedmodel import Sample
from maskedmodel.errors import DataError, DependencyError, ShapeError
from maskedmodel.training.data import (
    Broken,
    Guarded,
    Reading,
    StepBatches,
    eval_batches,
    permutation,
    spread,
    train_batches,
)
from maskedmodel.training.fingerprint import fingerprint
from maskedmodel.training.folder import claimed
from maskedmodel.training.hanging import stacks_in
from tests.training.conftest import Wave, Waves


class Listed:
    """A dataset of what it is given: samples, or exceptions to raise, or callables to ask."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        if isinstance(item, BaseException):
            raise item
        return item() if callable(item) else item


def sample(index: int, length: int = 24) -> Sample:
    return {"signal": torch.full((2, length), float(index)), "id": f"s{index}", "label": index}


@given(size=st.integers(1, 30), batch=st.integers(1, 40), start=st.integers(0, 12))
def test_order_is_a_function_of_the_step(size: int, batch: int, start: int) -> None:
    straight = list(StepBatches(size, batch, 7, 0, 16))
    assert list(StepBatches(size, batch, 7, start, 16)) == straight[start:]
    drawn = [pair for step in straight for pair in step]
    for epoch in range(len(drawn) // size):
        part = drawn[epoch * size : (epoch + 1) * size]
        assert sorted(part) == [(index, epoch) for index in range(size)]


@given(size=st.integers(1, 20), share=st.integers(1, 5), ranks=st.integers(1, 4))
def test_ranks_share_out_the_global_batch(size: int, share: int, ranks: int) -> None:
    whole = list(StepBatches(size, share * ranks, 0, 0, 5))
    parts = [list(StepBatches(size, share * ranks, 0, 0, 5, rank, ranks)) for rank in range(ranks)]
    assert [[pair for part in parts for pair in part[step]] for step in range(5)] == whole


def test_permutations_differ_by_seed_and_epoch() -> None:
    orders = {tuple(permutation(seed, epoch, 50).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_train_batches(workers: int) -> None:
    data = Listed([sample(i) for i in range(10)])
    order = StepBatches(10, 4, 0, 0, 5)
    found = list(train_batches(data, Wave(), order, workers=workers))
    assert len(found) == 5
    for batch, wanted in zip(found, order, strict=True):
        assert batch.ids == [f"s{index}" for index, _ in wanted]
        assert batch.epochs.tolist() == [epoch for _, epoch in wanted]
        assert batch.labels is not None
        assert batch.labels.tolist() == [index for index, _ in wanted]
        assert batch.signal[:, 0, 0].tolist() == [float(index) for index, _ in wanted]


def test_noise_of_a_sample_doesnt_depend_on_its_batch() -> None:
    data = Listed([sample(i) for i in range(10)])
    by_id: dict[tuple[Any, int], torch.Tensor] = {}
    for size in (3, 5):
        for batch in train_batches(data, Wave(), StepBatches(10, size, 0, 0, 20)):
            for row, key in enumerate(zip(batch.ids, batch.epochs.tolist(), strict=True)):
                drawn = batch.noise(1).uniform(4)[row]
                assert torch.equal(by_id.setdefault(key, drawn), drawn)
    assert len({tuple(drawn.tolist()) for drawn in by_id.values()}) == len(by_id)


def test_broken_samples_are_values() -> None:
    nan = sample(0)
    nan["signal"][0, 3] = torch.nan
    data = Guarded(Listed([DataError("Cut short.", where="a.png"), ValueError("bad header"), nan, sample(1)]))
    reasons = [data[index, 0][0] for index in range(3)]
    assert all(isinstance(broken, Broken) for broken in reasons)
    assert [str(broken.id) for broken in reasons] == ["0", "1", "2"]  # type: ignore[union-attr]
    assert "a.png" in reasons[0].reason  # type: ignore[union-attr]
    assert "ValueError: bad header" in reasons[1].reason  # type: ignore[union-attr]
    assert "NaN" in reasons[2].reason  # type: ignore[union-attr]
    assert not isinstance(data[3, 0][0], Broken)
    assert [broken.said for broken in reasons] == [  # type: ignore[union-attr]
        "Cut short: a.png",
        "ValueError: bad header",
        "A sample holds NaN or infinity: sample s0",
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_broken_samples_only_holds_them_and_nothing_else(workers: int) -> None:
    data = Listed([ValueError("x")] * 4)
    (batch,) = train_batches(data, Wave(), StepBatches(4, 2, 0, 0, 1), workers=workers)
    assert batch.ids == []
    assert len(batch.broken) == 2
    assert len(batch.to("cpu").signal) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_chunks_are_passed_over_and_told(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    """Two chunks of broken samples alone, the last one short, and a conversion that is counted."""
    noted = {**sample(3), "notes": ["transparency left out"]}
    data = Listed([ValueError("bad"), ValueError("bad"), sample(2), noted, ValueError("bad")])  # type: ignore[list-item]
    batches = eval_batches(data, Wave(), Reading(batch=2, on_bad_sample="skip", workers=workers))
    with caplog.at_level(logging.WARNING):
        assert [i for batch in batches for i in batch.ids] == ["s2", "s3"]
    assert [broken.id for broken in batches.broken] == ["0", "1", "4"]
    assert "3 of 5 samples left out: 0 (ValueError: bad)" in caplog.text
    assert "1 of 2 samples: transparency left out" in caplog.text
    with pytest.raises(DataError, match="can't be read"):
        list(eval_batches(Listed([ValueError("x")] * 3), Wave(), Reading(batch=2, on_bad_sample="skip")))


def test_infinity_and_nothing_are_broken_even_where_nan_is_accepted() -> None:
    values = torch.tensor([[1.0, torch.nan], [torch.inf, 1.0], [torch.nan, torch.nan]])
    data = Guarded(Listed([{"signal": row, "id": "x"} for row in values]), accepts_nan=True)  # type: ignore[misc]
    found = [data[index, 0][0] for index in range(3)]
    assert not isinstance(found[0], Broken)
    assert "infinity" in found[1].reason  # type: ignore[union-attr]
    assert "all its values are missing" in found[2].reason  # type: ignore[union-attr]


def test_a_missing_package_is_no_broken_sample() -> None:
    data = Listed([sample(0), DependencyError("Reading zstd needs imagecodecs.")])
    with pytest.raises(DependencyError, match="imagecodecs"):
        list(eval_batches(data, Wave(), Reading(on_bad_sample="skip")))


class Slow(Listed):
    def __getitem__(self, index: int) -> Any:
        if index == 1:
            time.sleep(30)
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_hangs_is_named_with_its_place(workers: int) -> None:
    data = Slow([sample(0), sample(1), sample(2)])
    with pytest.raises(DataError, match=r"longer than 0\.9 s, at __getitem__") as raised:
        list(eval_batches(data, Wave(), Reading(timeout=1, workers=workers)))
    assert "sample 1" in str(raised.value)
    (found,) = eval_batches(data, Wave(), Reading(timeout=1, workers=workers, on_bad_sample="skip"))
    assert found.ids == ["s0", "s2"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_stack_of_a_sample_that_hangs_is_kept(workers: int, tmp_path: Path) -> None:
    with stacks_in(tmp_path), pytest.raises(DataError, match="its stack stands in") as raised:
        list(eval_batches(Slow([sample(0), sample(1)]), Wave(), Reading(timeout=1, workers=workers)))
    (kept,) = tmp_path.iterdir()
    assert str(kept) in str(raised.value)
    assert "time.sleep(30)" in kept.read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_of_different_shapes_name_both(workers: int) -> None:
    data = Listed([sample(0), sample(1, length=27)])
    with pytest.raises(ShapeError, match="differ in shape") as raised:
        list(train_batches(data, Wave(), StepBatches(2, 2, 0, 0, 1), workers=workers))
    assert "(2, 24), (2, 27)" in str(raised.value)


def test_eval_batches_follow_the_policy() -> None:
    data = Listed([sample(0), ValueError("x"), sample(2)])
    with pytest.raises(DataError, match="can't be read"):
        list(eval_batches(data, Wave(), Reading(batch=2)))
    found = list(eval_batches(data, Wave(), Reading(batch=2, on_bad_sample="skip")))
    assert [i for batch in found for i in batch.ids] == ["s0", "s2"]


def test_spread_is_even_and_in_order() -> None:
    assert spread(10, None) == spread(10, 20) == list(range(10))
    assert spread(10, 4) == [0, 2, 5, 7]


def die() -> Sample:
    os._exit(9)


def hang() -> Sample:
    """Deaf to the limit of a sample, as code in C can be."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(30)
    raise AssertionError


def read_with_a_worker(fault: Any, timeout: float) -> None:
    """What the test below runs in a process of its own."""
    data = Listed([sample(0), sample(1), fault, sample(3)])
    try:
        list(train_batches(data, Wave(), StepBatches(4, 2, 0, 0, 2), workers=1, timeout=timeout))
    except DataError as error:
        print(f"told: {error}; left: {sorted(alive())}", flush=True)
    os._exit(0)


@pytest.mark.parametrize(("fault", "timeout"), [("die", 10.0), ("hang", 1.0)])
def test_a_worker_that_dies_or_hangs_is_an_error(fault: str, timeout: float) -> None:
    """In a process of its own: torch tells of a dead worker from a signal handler, which may strike anywhere.

    No process is left behind.
    """
    code = f"from tests.training import test_data as t; t.read_with_a_worker(t.{fault}, {timeout})"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert "told: A data worker died or hung." in done.stdout, done.stderr
    assert "; left: []" in done.stdout


def test_fingerprint_tells_data_sets_apart() -> None:
    prints = {fingerprint(Waves(count=count).open("train")) for count in (20, 21)}
    prints.add(fingerprint(Waves(count=20).open("val")))
    assert len(prints) == 3
    assert fingerprint(Waves(count=20).open("train")) in prints


def test_a_fingerprint_knows_content() -> None:
    """The same names and another content, in the first, a middle and the last sample."""
    samples = [sample(index) for index in range(16)]
    before = fingerprint(Listed(samples))  # type: ignore[arg-type]
    for index in (0, 7, 15):
        other = [*samples]
        other[index] = {**sample(index), "signal": sample(index)["signal"] + 1e-6}
        assert fingerprint(Listed(other)) != before  # type: ignore[arg-type]
        other[index] = {**sample(index), "signal": sample(index)["signal"].double()}
        assert fingerprint(Listed(other)) != before  # type: ignore[arg-type]
    assert fingerprint(Listed([sample(index) for index in range(16)])) == before  # type: ignore[arg-type]


def test_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    list(train_batches(Listed([sample(0)]), Wave(), StepBatches(1, 2, 0, 0, 3), workers=1))
    assert torch.equal(before, torch.get_rng_state())


def deadlock() -> Any:
    """Hangs within a library: no signal that Python handles gets through."""
    lock = ctypes.create_string_buffer(256)
    library = ctypes.CDLL(None)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)


def alive() -> set[str]:
    """The processes that this one has started and that haven't ended."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        child for child in children if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    }


def test_a_worker_that_hangs_in_a_library_leaves_its_stack_and_ends(tmp_path: Path) -> None:
    data, before = Listed([sample(0), deadlock, sample(2)]), alive()
    with stacks_in(tmp_path), pytest.raises(DataError, match="died or hung") as raised:
        list(eval_batches(data, Wave(), Reading(batch=1, timeout=2, workers=1)))
    (kept,) = tmp_path.iterdir()
    assert kept.name == f"data-stacks-{os.getpid()}.txt"
    assert str(kept) in str(raised.value)
    assert "in deadlock" in kept.read_text()
    assert alive() <= before  # those of other tests


def test_no_stack_leaves_no_file(tmp_path: Path) -> None:
    data = Listed([sample(0), sample(1)])
    with stacks_in(tmp_path):
        batches = eval_batches(data, Wave(), Reading(batch=1, timeout=60, workers=1))
        assert [i for batch in batches for i in batch.ids] == ["s0", "s1"]
    assert not list(tmp_path.iterdir())
    (tmp_path / "data-stacks-1.txt").touch()  # of a process that was killed
    (tmp_path / "data-stacks-2.txt").write_text("a stack")
    with claimed(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "data-stacks-2.txt"}


def test_a_sample_that_hangs_holds_a_fingerprint_up_no_longer_than_is_set() -> None:
    samples = Waves(count=20).open("train")

    class Slow:
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int) -> Any:
            if index == 0:
                time.sleep(30)
                raise AssertionError("it was waited for")
            return samples[index]

    assert fingerprint(Slow(), timeout=0.2) != fingerprint(samples)
    assert fingerprint(Slow(), timeout=0.2) == fingerprint(Slow(), timeout=0.2)
