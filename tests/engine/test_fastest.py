"""The choice of kernels: by what is measured, once for a machine, and the same for whoever asks later."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maskedmodel.engine import fastest, kernels
from maskedmodel.engine.layers import Linear
from maskedmodel.errors import ConfigError

CACHED = (fastest._by_hand, fastest._folder, fastest._machine)


@pytest.fixture(autouse=True)
def unsettled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing is chosen yet, and the file lies in a folder of the test's own."""
    monkeypatch.setattr(kernels, "chosen_products", {})
    monkeypatch.setattr(kernels, "chosen_attention", None)
    monkeypatch.setenv(fastest.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv(fastest.VARIABLE, raising=False)
    for function in CACHED:
        function.cache_clear()
    yield tmp_path / "maskedmodel"
    for function in CACHED:
        function.cache_clear()


def times(monkeypatch: pytest.MonkeyPatch, *seconds: list[float]) -> list[int]:
    """Hand out these times for what is measured, one list after the other; the list given back counts the calls."""
    left, calls = list(seconds), list[int]()

    def measured(steps: Any) -> list[float]:
        calls.append(len(steps))
        for step in steps:
            step()  # it can be done
        return left.pop(0) if left else [1.0] * len(steps)

    monkeypatch.setattr(fastest, "fastest_of", measured)
    return calls


@pytest.mark.parametrize(("onednn", "chosen"), [(0.5, True), (0.99, False), (2.0, False)])
@pytest.mark.skipif(not kernels.has_operator(), reason="this torch has no oneDNN")
def test_a_product_is_chosen_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, onednn: float, chosen: bool
) -> None:
    times(monkeypatch, [1.0, 1.0, 1.0], [1.0, onednn])
    Linear(192, 768)
    assert kernels.chosen_products == {1: chosen}


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ([[2.0, 1.0, 3.0]], kernels.Attention(0, False)),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], kernels.Attention(48, True)),
        ([[1.0, 2.0, 2.0]] * 5, kernels.Attention(400, False)),
    ],
)
def test_the_plain_attention_is_taken_as_long_as_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: list[list[float]], chosen: kernels.Attention
) -> None:
    times(monkeypatch, *seconds)
    fastest.settle([])
    assert kernels.chosen_attention == chosen


def test_what_was_measured_once_is_read(monkeypatch: pytest.MonkeyPatch, unsettled: Path) -> None:
    calls = times(monkeypatch, [1.0, 2.0, 2.0], [3.0, 2.0, 2.0])
    fastest.settle([64])
    before = kernels.chosen_attention, dict(kernels.chosen_products)
    assert len(list(unsettled.iterdir())) == 2
    done = len(calls)
    monkeypatch.setattr(kernels, "chosen_products", {})
    monkeypatch.setattr(kernels, "chosen_attention", None)
    fastest.settle([64])
    assert (kernels.chosen_attention, kernels.chosen_products) == before
    assert len(calls) == done


def test_of_two_that_measure_at_once_the_first_settles_it(monkeypatch: pytest.MonkeyPatch, unsettled: Path) -> None:
    unsettled.mkdir()
    path = unsettled / f"kernels-{fastest._machine()}-attention.json"

    def measured() -> kernels.Attention:
        path.write_text(json.dumps({"chosen": [96, True]}))  # another process was quicker
        return kernels.Attention(0, False)

    monkeypatch.setattr(fastest, "_measured_attention", measured)
    fastest.settle([])
    assert kernels.chosen_attention == kernels.Attention(96, True)
    assert [entry.name for entry in unsettled.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"chosen": [1]}', '{"chosen": ["many", true]}'])
def test_a_damaged_file_is_measured_anew(monkeypatch: pytest.MonkeyPatch, unsettled: Path, content: str) -> None:
    unsettled.mkdir()
    file = unsettled / f"kernels-{fastest._machine()}-attention.json"
    file.write_text(content)
    times(monkeypatch, [2.0, 1.0, 3.0])
    fastest.settle([])
    assert kernels.chosen_attention == kernels.Attention(0, False)
    assert json.loads(file.read_text()) == {"chosen": [0, False]}


def test_where_nothing_can_be_written_it_is_measured_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fastest.FOLDER_VARIABLE, "/dev/null")
    times(monkeypatch, [2.0, 1.0, 3.0])
    fastest.settle([])
    assert kernels.chosen_attention == kernels.Attention(0, False)
    assert fastest.described()["chosen"] == "measured, not kept"


@pytest.mark.parametrize(
    ("text", "products", "attention"),
    [
        ("product:torch, attention:fused", False, kernels.Attention(0, True)),
        ("attention:64", False, kernels.Attention(64, True)),
        pytest.param(
            "product:onednn", True, kernels.Attention(400, False),
            marks=pytest.mark.skipif(not kernels.has_operator(), reason="this torch has no oneDNN"),
        ),
    ],
)  # fmt: skip
def test_a_choice_by_hand(
    monkeypatch: pytest.MonkeyPatch, text: str, products: bool, attention: kernels.Attention
) -> None:
    calls = times(monkeypatch)
    monkeypatch.setenv(fastest.VARIABLE, text)
    fastest.settle([64])
    assert (kernels.chosen_products, kernels.chosen_attention) == (kernels.everywhere(products), attention)
    assert not calls
    assert fastest.described()["chosen"] == "set by MASKEDMODEL_KERNELS"


@pytest.mark.parametrize("text", ["fast", "product:mkl", "attention:-1", "attention:", "product:torch,other:1"])
def test_a_choice_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(fastest.VARIABLE, text)
    with pytest.raises(ConfigError, match=r"MASKEDMODEL_KERNELS(.|\n)*product:torch"):
        Linear(4, 4)


def test_a_resumed_run_goes_on_with_what_its_checkpoint_was_made_by(monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, [1.0, 2.0, 2.0], [3.0, 2.0, 2.0])
    fastest.settle([64])
    kept = json.loads(json.dumps(fastest.in_use()))
    before = kernels.chosen_attention, dict(kernels.chosen_products)
    monkeypatch.setattr(kernels, "chosen_attention", kernels.Attention(0, True))
    kernels.chosen_products.update(kernels.everywhere(True))
    fastest.take_up({**kept, "machine": "another"})
    assert kernels.chosen_attention == kernels.Attention(0, True)
    for nothing in (None, [], {}):
        fastest.take_up(nothing)
    fastest.take_up(kept)
    assert kernels.chosen_attention == before[0]
    assert kernels.chosen_products[0] == before[1][0]


def test_the_shortest_of_several_times_counts_of_what_the_processor_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, costs = [0.0], iter([9.0, 9.0, 5.0, 1.0, 3.0, 2.0, 4.0, 2.5] + [6.0] * 10_000_000)
    monkeypatch.setattr(time, "process_time", lambda: clock[0])

    def step() -> None:
        clock[0] += next(costs)

    assert fastest.fastest_of([step, step]) == [3.0, 1.0]


def test_threads_are_as_before_once_it_is_measured() -> None:
    before = torch.get_num_threads()
    fastest.settle([64])
    assert torch.get_num_threads() == before


def test_measuring_draws_nothing_and_works_in_inference_mode() -> None:
    before = torch.get_rng_state()
    with torch.inference_mode():
        fastest.settle([64])
    assert torch.equal(before, torch.get_rng_state())
    assert kernels.chosen_attention is not None


def test_processes_of_a_machine_agree(tmp_path: Path) -> None:
    code = (
        "from maskedmodel.engine import fastest, kernels\nfastest.settle([64, 768])\n"
        "print(kernels.chosen_attention, sorted(kernels.chosen_products.items()))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate()[0] for process in running}) == 1
