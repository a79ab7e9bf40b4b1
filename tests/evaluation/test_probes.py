from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from maskedmodel import MaskedAutoencoder
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.errors import DataError
from maskedmodel.evaluation import classifiers
from maskedmodel.evaluation import probes as module
from maskedmodel.evaluation.probes import ProbeResult, probe, random_twin
from maskedmodel.training.data import Reading


def test_probe_has_three_rows_over_the_same_samples(model: MaskedAutoencoder, bars: Any) -> None:
    said: list[str] = []
    result = probe(
        model,
        bars(),
        EvaluateSettings(neighbours=5),
        Reading(batch=16),
        progress=lambda what, done, total: said.append(what),
    )
    assert [row.name for row in result.rows] == ["trained encoder", "same encoder, random weights", "raw values"]
    assert [row.width for row in result.rows] == [16, 16, 64]
    assert all(row.knn.count == row.linear.accuracy.count == 20 for row in result.rows)
    assert result.rows[2].linear.accuracy.value > 0.8
    for part in (
        "mean over the tokens",
        "final LayerNorm",
        "k=5",
        "0.07",
        "0.0001",
        "40 training",
        "20 validation",
        "2 classes",
        "Seed 0",
        "0.500",
    ):
        assert part in result.protocol
    assert result.notes == ()
    assert "features of the training part" in said
    assert said[-1] == "probes"


def test_probe_is_reproducible_and_draws_nothing_global(model: MaskedAutoencoder, bars: Any) -> None:
    before = torch.get_rng_state()
    model.train()
    assert probe(model, bars(), EvaluateSettings()) == probe(model, bars(), EvaluateSettings())
    assert torch.equal(before, torch.get_rng_state())
    assert model.encoder.training


def test_probe_takes_as_many_samples_as_the_settings_say(model: MaskedAutoencoder, bars: Any) -> None:
    result = probe(model, bars(), EvaluateSettings(train_samples=9, val_samples=6, pool="class"))
    assert "9 training and 6 validation" in result.protocol
    assert "class token" in result.protocol
    assert "k=9" in result.protocol  # never more neighbours than there are samples


def test_without_baselines_the_encoder_stands_alone(model: MaskedAutoencoder, bars: Any) -> None:
    alone = probe(model, bars(), EvaluateSettings(), baselines=False)
    beside = probe(model, bars(), EvaluateSettings())
    assert alone.rows == beside.rows[:1]
    assert alone.protocol == beside.protocol


def test_json_round_trip_and_table(model: MaskedAutoencoder, bars: Any) -> None:
    result = probe(model, bars(doubled=1), EvaluateSettings())
    assert ProbeResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result
    headings, rows = result.table()
    assert all(len(row) == len(headings) for row in rows)
    assert rows[0][0] == "trained encoder"


def test_duplicates_across_splits_are_named(model: MaskedAutoencoder, bars: Any) -> None:
    (note,) = probe(model, bars(doubled=5), EvaluateSettings()).notes
    assert "5 of 20 validation samples also stand in the training part" in note
    assert "val-0, val-1, val-2, ..." in note


def test_unlabelled_data_is_refused(model: MaskedAutoencoder, bars: Any) -> None:
    with pytest.raises(DataError, match="A probe needs labels"):
        probe(model, bars(labelled=False), EvaluateSettings())


@pytest.mark.parametrize(
    ("protocol", "folds", "said"), [("folds", 3, "3-fold"), ("leave_one_out", 59, "leave-one-out")]
)
def test_folds_test_every_labelled_sample_once(
    model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch, protocol: Any, folds: int, said: str
) -> None:
    source = bars()
    samples = {split: source.open(split) for split in ("train", "val")}
    for split in ("train", "val"):
        for index, sample in enumerate(samples[split]):
            sample["group"] = f"field {index % 3}"
    del samples["train"][0]["label"]
    monkeypatch.setattr(type(source), "open", lambda self, split: samples[split])
    counted: list[int] = []
    fit = classifiers._linear

    def counting(x: Any, y: Any, tested: Any, labels: Any, seed: int) -> Any:
        counted.append(len(labels))
        assert len(y) + len(labels) == 59
        return fit(x, y, tested, labels, seed)

    monkeypatch.setattr(classifiers, "_linear", counting)
    result = probe(model, source, EvaluateSettings(protocol=protocol))
    assert [sum(counted), len(counted)] == [59 * 3, folds * 3]
    assert all(row.knn.count == row.linear.accuracy.count == 59 for row in result.rows)
    assert said in result.protocol
    assert any("1 of 60 samples have no label" in note for note in result.notes)


def test_folds_of_one_group_are_refused(model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bars()
    samples = [{**sample, "group": "all"} for sample in source.open("train")]
    monkeypatch.setattr(type(source), "open", lambda self, split: samples)
    with pytest.raises(DataError, match="two groups or more"):
        probe(model, source, EvaluateSettings(protocol="folds"))


def test_plain_features_of_the_tokenizer_are_rows(
    model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(model.tokenizer),
        "plain_features",
        lambda self, stored: {"brightness": stored.mean((2, 3))},
        raising=False,
    )
    result = probe(model, bars(), EvaluateSettings())
    assert [(row.name, row.width) for row in result.rows][-1] == ("brightness", 1)


def test_a_class_unknown_to_training_is_named(
    model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bars()
    strange = source.open("val")
    strange[0]["label"] = 7
    train = source.open("train")
    monkeypatch.setattr(type(source), "open", lambda self, split: train if split == "train" else strange)
    result = probe(model, source, EvaluateSettings())
    assert "Classes [7]" in result.notes[0]


def test_raw_values_too_many_for_memory_are_left_out_aloud(
    model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RAW_LIMIT", 40 * 64 - 1)
    result = probe(model, bars(), EvaluateSettings())
    assert len(result.rows) == 2
    assert "40 samples of 64 values" in result.notes[0]


def test_the_random_twin_keeps_statistics_but_no_weights(model: MaskedAutoencoder) -> None:
    model.tokenizer.shift.fill_(0.25)  # type: ignore[operator, union-attr]
    twin = random_twin(model, seed=1)
    assert twin.tokenizer.shift.item() == 0.25  # type: ignore[operator, union-attr]
    assert twin.settings == model.settings
    own, other, again = (dict(m.named_parameters()) for m in (model, twin, random_twin(model, seed=1)))
    assert own.keys() == other.keys()
    assert all(torch.equal(other[name], again[name]) for name in own)
    name = "encoder.blocks.0.qkv.weight"
    assert not torch.equal(own[name], other[name])
    assert own[name].data_ptr() != other[name].data_ptr()


def test_a_long_wait_is_told_beforehand(caplog: pytest.LogCaptureFixture) -> None:
    module._tell_time(0.4, folds=31, kinds=4)  # 50 seconds
    assert not caplog.records
    module._tell_time(3.4, folds=31, kinds=4)
    assert caplog.messages == ["Probes will take some 7 minutes: 31 folds of 4 kinds of features."]


def test_each_fold_is_told(model: MaskedAutoencoder, bars: Any) -> None:
    said: list[tuple[str, int, int]] = []
    probe(
        model,
        bars(),
        EvaluateSettings(protocol="leave_one_out", train_samples=5, val_samples=4),
        progress=lambda *now: said.append(now),
    )
    assert [done for what, done, total in said if what == "probe of raw values" and total == 9] == list(range(9))
