"""What is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskedmodel import MaskedModelError
from maskedmodel.comparison.arms import arms_of
from maskedmodel.comparison.plan import Plan, make_plan
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.plugins import Registry
from maskedmodel.training.fingerprint import fingerprint
from tests.comparison.conftest import TINY

MASKS = ("uniform", "ramped")


def plan(registry: Registry, folder: Path, masks: Any = MASKS, *overrides: str, **options: Any) -> Plan:
    arms = arms_of(TINY, overrides, masks, options.pop("vary", []), registry)
    given = {"seeds": 2, "budget": "flops", **options}
    return make_plan(folder, TINY, overrides, arms, registry=registry, **given)


def test_runs_by_seed_first_and_their_settings(registry: Registry, tmp_path: Path) -> None:
    made = plan(registry, tmp_path, MASKS, "train.seed=5", "train.steps=40")
    assert [(run.arm, run.seed) for run in made.runs] == [("uniform", 5), ("ramped", 5), ("uniform", 6), ("ramped", 6)]
    assert made.seeds == (5, 6)
    run = made.runs[2]
    assert run.folder == tmp_path / "runs" / "uniform" / "seed-6"
    assert (run.config.train.seed, run.config.train.steps, run.config.train.validate_every) == (6, 40, 5)
    assert made.arms[0].steps == 40
    assert abs(made.arms[1].cost - made.amount) < made.amount / 40
    assert (run.folder / "config.yaml").exists()


def test_a_config_that_says_how_often_to_validate_is_heard(registry: Registry, tmp_path: Path) -> None:
    made = plan(registry, tmp_path, MASKS, "train.validate_every=3")
    assert made.runs[0].config.train.validate_every == 3


def test_the_same_plan_again_is_the_same(registry: Registry, tmp_path: Path) -> None:
    first = plan(registry, tmp_path)
    again = plan(registry, tmp_path, seeds=3)
    assert again.amount == first.amount
    assert again.arms == first.arms
    assert [run for run in again.runs if run.seed < 2] == list(first.runs)
    more = plan(registry, tmp_path, (*MASKS, "blocks"))
    assert more.arms[:2] == first.arms
    assert {arm["slug"] for arm in json.loads((tmp_path / "plan.json").read_text())["arms"]} == {*MASKS, "blocks"}


def test_a_measured_time_is_measured_once(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskedmodel.comparison import budget

    monkeypatch.setattr(budget, "seconds", lambda stand, progress: 0.5 - 0.2 * stand.model.scheduler.ratio(progress))
    first = plan(registry, tmp_path, budget="seconds")
    monkeypatch.setattr(budget, "seconds", lambda stand, progress: pytest.fail("measured twice"))
    assert plan(registry, tmp_path, budget="seconds").arms == first.arms


def refused(error: type[MaskedModelError], registry: Registry, folder: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as raised:
        plan(registry, folder, *arguments, **options)
    return str(raised.value)


def test_no_seed_and_a_single_arm_are_refused(registry: Registry, tmp_path: Path) -> None:
    assert "--seeds" in refused(ConfigError, registry, tmp_path, seeds=0)
    assert "nothing to compare" in refused(ConfigError, registry, tmp_path, ["uniform"])
    assert not (tmp_path / "plan.json").exists()


def test_a_mask_that_the_tokens_do_not_allow_is_refused_by_name(registry: Registry, tmp_path: Path) -> None:
    said = refused(MaskedModelError, registry, tmp_path, ["uniform", "tube"])
    assert "--mask tube" in said
    assert "mask.axis" in said
    said = refused(MaskedModelError, registry, tmp_path, ["uniform", "ramped:end=0.99"])
    assert "--mask ramped:end=0.99" in said
    assert "mask.end" in said
    assert not (tmp_path / "plan.json").exists()


CHANGED: dict[str, tuple[tuple[str, ...], dict[str, Any], type[MaskedModelError], str]] = {
    "another learning rate": (("optim.lr=0.5",), {}, ConfigError, "optim.lr was 0.01, now 0.5"),
    "other steps": (("train.steps=13",), {}, ConfigError, "train.steps was 12, now 13"),
    "another seed": (("train.seed=3",), {}, ConfigError, "train.seed was 0, now 3"),
    "another budget": ((), {"budget": "tokens"}, ConfigError, "--budget"),
    "other data": (("data.size=16", "tokenizer.size=16"), {}, DataError, "validation data"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_folder_of_other_runs_is_refused(case: str, registry: Registry, tmp_path: Path) -> None:
    overrides, options, error, said = CHANGED[case]
    plan(registry, tmp_path)
    before = (tmp_path / "plan.json").read_bytes()
    assert said in refused(error, registry, tmp_path, MASKS, *overrides, **options)
    assert (tmp_path / "plan.json").read_bytes() == before


def test_another_reference_is_refused(registry: Registry, tmp_path: Path) -> None:
    plan(registry, tmp_path)
    said = refused(ConfigError, registry, tmp_path, ["ramped", "uniform"])
    assert "'uniform' first" in said


def test_what_changes_no_result_may_change(registry: Registry, tmp_path: Path) -> None:
    plan(registry, tmp_path)
    plan(registry, tmp_path, MASKS, "train.workers=1", "evaluate.neighbours=3")


def test_the_folder_of_a_run_is_refused(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {steps: 5}\n")
    assert "holds a run" in refused(ConfigError, registry, tmp_path)


@pytest.mark.parametrize("content", ["{", '{"format": 99}'])
def test_a_damaged_plan_is_named(content: str, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    assert "plan.json" in refused(DataError, registry, tmp_path)


class Few:
    def __init__(self, *values: float) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        import torch

        if self.values[index] < 0:
            raise DataError("Broken.")
        return {"signal": torch.tensor([self.values[index]]), "id": index}


def test_the_fingerprint_sees_values_ids_and_broken_samples() -> None:
    assert fingerprint(Few(1, 2, 3)) == fingerprint(Few(1, 2, 3))
    assert len({fingerprint(Few(*values)) for values in ([1, 2, 3], [1, 2, 4], [1, 2], [1, 2, -1])}) == 4
