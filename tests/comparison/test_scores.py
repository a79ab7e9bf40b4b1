"""Yardsticks by name: what they refuse, what they give, and that a killed comparison goes on among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskedmodel.adapting import run as adapting
from maskedmodel.comparison.arms import arms_of
from maskedmodel.comparison.budget import Stand
from maskedmodel.comparison.finetuning import config_of, finetuned
from maskedmodel.comparison.judging import flops_of
from maskedmodel.comparison.result import Comparison
from maskedmodel.comparison.scores import DEFAULT, judged_by, labels_of, primary_of, probes_of, scores_of
from maskedmodel.comparison.yardstick import key_of
from maskedmodel.engine.flops import TRAIN, forward_flops
from maskedmodel.errors import ConfigError, DataError, MaskedModelError
from maskedmodel.plugins import Registry
from maskedmodel.training.supervised import Supervised
from tests.comparison.conftest import TINY, Go

QUICK = ("evaluate.finetune_steps=3", "evaluate.probe_epochs=1", "evaluate.probe=true")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskedmodel.evaluation.fitting.FEWEST_STEPS", 3)


def test_names_are_read_and_kept_once() -> None:
    names = scores_of(["knn,linear", "attentive, layers", "finetune:1%,finetune:1.0%,finetune:050,knn"])
    assert names == ("knn", "linear", "attentive", "layers", "finetune:1%", "finetune:50")
    assert probes_of(names) == ("knn", "linear", "attentive", "layers")
    assert labels_of(names) == ("1%", "50")
    assert [metric.key for metric in judged_by(names)][4:] == [
        "knn", "linear", "attentive", "layer", "mixture", "finetune:1%", "finetune:50",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("attentiv", "Did you mean 'attentive'"),
        ("accuracy", "knn, linear, attentive"),
        ("knn,,linear", "nothing"),
        ("finetune", "finetune:1%"),
        ("finetune:", "finetune:LABELS"),
        ("finetune:0%", "share up to 100%"),
        ("finetune:101%", "share up to 100%"),
        ("finetune:-5", "number above 0"),
        ("finetune:few", "number above 0"),
    ],
)
def test_unknown_names_are_refused_with_the_list(asked: str, says: str) -> None:
    with pytest.raises(ConfigError, match="--score") as caught:
        scores_of([asked])
    assert says in str(caught.value)


def test_a_primary_measure_is_one_of_the_scores() -> None:
    assert primary_of("attentive", ("knn", "attentive")) == "attentive"
    assert primary_of("loss@0.75", DEFAULT) == "loss@0.75"
    assert primary_of(None, DEFAULT) is None
    with pytest.raises(ConfigError, match=r"--primary(.|\n)*loss@0.25, loss@0.5, loss@0.75, loss@0.9, knn, linear"):
        primary_of("attentive", DEFAULT)


def test_the_key_of_a_measurement_changes_only_with_what_is_asked_for(registry: Registry) -> None:
    def config(*overrides: str) -> Any:
        return arms_of(TINY, overrides, ["uniform"], [], registry)[0].config

    data = {"train": "a", "val": "b"}
    plain, more = config(), config("evaluate.finetune_steps=7", "evaluate.probe_epochs=9")
    assert key_of(plain, data) == key_of(plain, data, ["linear", "knn"]) == key_of(more, data)
    assert key_of(plain, data, ["knn"]) != key_of(plain, data)
    assert key_of(plain, data, ["knn"]) == key_of(more, data, ["knn"])
    for score in ("attentive", "finetune:1%"):
        assert key_of(plain, data, [score]) != key_of(more, data, [score])


def figures(result: Comparison, *keys: str) -> list[list[Any]]:
    return [[run[key] for key in keys] for run in result.runs]


def test_every_score_is_in_results_table_page_and_verdicts(go: Go, tmp_path: Path, done: list[str]) -> None:
    plain = go(tmp_path / "plain", seeds=2, overrides=QUICK)
    scores = "knn,linear,attentive,layers,batchnorm,finetune:10%"
    keys = ("attentive", "layer", "mixture", "batchnorm", "finetune:10%")
    result = go(tmp_path / "more", seeds=2, overrides=QUICK, scores=[scores])
    # What was measured by default is measured to the same bits.
    for key in ("knn", "linear", "loss@0.75"):
        assert figures(result, key) == figures(plain, key)
        assert result.data["untrained"][key] == plain.data["untrained"][key]
    assert result.data["left_out"] == {}
    for arm in result.data["arms"]:
        assert set(keys) <= set(arm["summary"])
    assert set(keys) <= set(result.data["arms"][1]["against"])
    assert set(keys) <= set(result.data["untrained"])
    said, page = str(result), (tmp_path / "more" / "report.html").read_text()
    for title in ("attentive probe", "best layer", "mixture of layers", "BatchNorm and linear", "fine-tuned, 10%"):
        assert title in said
        assert title in page
    assert "efficient" not in page
    assert "No primary measure was declared" in said
    assert "10% of the labels: 144 training samples" in result.data["protocol"]
    assert "attentive, one query: one learned query attends" in result.data["protocol"]
    assert "is no part of the budget" in said
    assert result.runs[0].keys() >= {*keys}
    # The same folder, judged by fewer: nothing is trained again, nor fine-tuned.
    done.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskedmodel.training.loop.backward", lambda *_: pytest.fail("a step was made"))
        again = go(tmp_path / "more", seeds=2, overrides=QUICK, scores=["finetune:10%"])
    assert len(done) == 5
    assert figures(again, "finetune:10%") == figures(result, "finetune:10%")
    assert "knn" not in again.data["untrained"]


def test_arms_of_a_seed_are_given_the_same_labels_the_fewer_among_the_more(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[tuple[int, Any], list[Sequence[int]]] = {}
    real = adapting.labelled

    def labelled(source: Any, reading: Any, labels: Any, seed: int, strata: Any) -> Any:
        found = real(source, reading, labels, seed, strata)
        drawn.setdefault((seed, labels), []).append(found.train.chosen)
        return found

    monkeypatch.setattr(adapting, "labelled", labelled)
    result = go(tmp_path, seeds=2, overrides=QUICK, scores=["finetune:20", "finetune:10%"])
    assert drawn.keys() == {(seed, labels) for seed in (0, 1) for labels in (20, "10%")}
    for (seed, labels), chosen in drawn.items():
        assert len(chosen) == (3 if seed == 0 else 2)  # both arms, and the weights at the start
        assert all(one == chosen[0] for one in chosen)
        if labels == 20:
            assert set(chosen[0]) < set(drawn[seed, "10%"][0])
    assert drawn[0, 20][0] != drawn[1, 20][0]
    assert "fine-tuned, 20 labels" in str(result)


class Killed(BaseException):
    """Stands for SIGKILL: nothing gets to know of it."""


def test_a_comparison_killed_in_fine_tuning_goes_on_to_the_same_bits(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("evaluate.finetune_steps=8",)
    straight = go(tmp_path / "straight", seeds=1, overrides=settings, scores=["finetune:5%"])
    steps: list[int] = []
    real = Supervised.parts

    def parts(self: Supervised, *given: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 8 + 6:  # the second arm, after its checkpoint of step 4
            raise Killed
        return real(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "parts", parts)
        with pytest.raises(Killed):
            go(tmp_path / "cut", seeds=1, overrides=settings, scores=["finetune:5%"])
    before = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert before["done"] == 1
    moved = (tmp_path / "cut").rename(tmp_path / "moved")  # and a folder may be moved
    steps.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "parts", lambda self, *a, **k: (steps.append(1), real(self, *a, **k))[1])
        result = go(moved, seeds=1, overrides=settings, scores=["finetune:5%"])
    assert len(steps) == 4 + 8  # from step 4 on, and the weights at the start
    assert figures(result, "finetune:5%", "loss@0.5") == figures(straight, "finetune:5%", "loss@0.5")
    assert result.data["untrained"] == straight.data["untrained"]


def test_the_verdict_is_made_by_the_primary_measure(go: Go, tmp_path: Path) -> None:
    result = go(tmp_path / "a", seeds=1, overrides=QUICK, scores=["knn,batchnorm"], primary="batchnorm")
    assert result.data["primary"] == {"key": "batchnorm", "after": 0}
    (line,) = [line for line in str(result).splitlines() if "by the primary measure" in line]
    assert line.startswith("  no verdict, by the primary measure: BatchNorm and linear (")
    assert str(result).count("BatchNorm and linear (") == 1
    assert "BatchNorm and linear, declared before any run was measured" in str(result)
    assert "primary measure" in (tmp_path / "a" / "report.html").read_text()
    # The same again keeps when it was declared; another one says that it came late.
    again = go(tmp_path / "a", seeds=1, overrides=QUICK, scores=["knn,batchnorm"], primary="batchnorm")
    assert again.data["primary"] == result.data["primary"]
    late = go(tmp_path / "a", seeds=1, overrides=QUICK, scores=["knn,batchnorm"], primary="knn")
    assert late.data["primary"] == {"key": "knn", "after": 2}
    assert "after 2 of the runs had been measured" in str(late)


def test_what_cannot_be_had_is_refused_before_anything_is_trained(go: Go, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"no class token(.|\n)*--score") as caught:
        go(tmp_path / "a", seeds=1, scores=["cls_mean"], overrides=["model.encoder.class_token=false"])
    with pytest.raises(DataError, match=r"fewer labelled training samples(.|\n)*--score, adapt.labels"):
        go(tmp_path / "a", seeds=1, scores=["finetune:100000"])
    with pytest.raises(DataError, match=r"(?s)--score, evaluate.token_memory"):
        go(tmp_path / "a", seeds=1, scores=["attentive"], overrides=["evaluate.token_memory=1e-9"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.get("data_source", "digits"), "class_names", lambda self: None)
        with pytest.raises(DataError, match=r"no labels(.|\n)*--score"):
            go(tmp_path / "a", seeds=1, scores=["knn"])
    with pytest.raises(DataError, match=r"a class for each place(.|\n)*--score"):
        go(tmp_path / "a", seeds=1, scores=["dense"])
    assert not list((tmp_path / "a").glob("runs/*/*/checkpoints"))
    assert isinstance(caught.value, MaskedModelError)


def test_the_dense_probe_needs_masks_and_no_labels(go: Go, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for index in range(12):
        mask = np.zeros((16, 16), dtype=np.uint8)
        mask[draws.integers(0, 8) :, : draws.integers(4, 12)] = 1
        for folder, values in (("images", mask * 200 + 20), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / f"{index}.png")
    own = ["data={name: image_folder, path: %s, masks: %s, mask_classes: [ground, cell]}", "tokenizer.channels=3"]
    own[0] %= (tmp_path / "images", tmp_path / "masks")
    result = go(tmp_path / "run", seeds=1, overrides=own, scores=["dense"])
    assert result.data["left_out"] == {}
    assert {row["metric"] for row in result.table if not row["metric"].startswith("loss")} == {"dense"}
    assert 0 < result.data["untrained"]["dense"] < 1
    assert "mIoU" in result.data["protocol"]


def test_the_cost_of_judging_by_hand(registry: Registry, tmp_path: Path) -> None:
    (arm,) = arms_of(TINY, ["evaluate.finetune_steps=100"], ["uniform"], [], registry)
    stand = Stand.of(arm.config, registry)
    one = forward_flops(stand.model, 16, 0).encoder
    assert flops_of(("knn", "linear"), stand, tmp_path, registry) == (100 * one, 0)  # 60 and 40 samples, once
    assert flops_of(("knn", "attentive"), stand, tmp_path, registry) == (200 * one, 0)
    frozen, tuning = flops_of(("finetune:1%",), stand, tmp_path, registry)
    val = len(stand.source.open("val"))
    # 100 steps of 32; validations at the start and after every 50 of all samples up to 512; a prediction of all.
    assert (frozen, tuning) == (0, (TRAIN * 100 * 32 + 3 * min(val, 512) + val) * one)


def test_weights_at_the_start_are_those_that_the_config_names(registry: Registry, tmp_path: Path) -> None:
    (fresh,) = arms_of(TINY, [], ["uniform"], [], registry)
    (given,) = arms_of(TINY, ["start=weights.safetensors"], ["uniform"], [], registry)
    own = config_of(fresh.config, tmp_path, "1%", registry, untrained=True)
    assert (own.start.weights, own.adapt.layer_decay) == (None, 1.0)
    theirs = config_of(given.config, tmp_path, "1%", registry, untrained=True)
    assert (theirs.start.weights, theirs.adapt.layer_decay) == ("weights.safetensors", 0.75)
    trained = config_of(given.config, tmp_path, "1%", registry)
    assert (trained.start.weights, trained.adapt.labels) == (str(tmp_path.resolve()), "1%")
    assert trained.train.seed == given.config.train.seed
    assert finetuned(fresh.config, tmp_path, DEFAULT, registry, None) == {}  # type: ignore[arg-type]
