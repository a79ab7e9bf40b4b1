"""Probes beside k-NN and the linear one, from the settings to the table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from maskedmodel import MaskedAutoencoder
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.evaluation import fitting, judging
from maskedmodel.evaluation.encoders import of_callable, of_model
from maskedmodel.evaluation.outcome import ProbeResult
from maskedmodel.evaluation.probes import probe
from maskedmodel.training.data import Reading
from tests.evaluation.conftest import build

EVERY = ("knn", "linear", "attentive", "efficient", "class_queries", "layers", "batchnorm", "cls_mean")
OWN = ["trained encoder", "same encoder, random weights"]


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "FEWEST_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def every(few_steps: None) -> ProbeResult:
    from tests.evaluation.conftest import Bars

    return probe(build(), Bars(), EvaluateSettings(probes=EVERY), Reading(batch=16))


def test_one_call_gives_every_probe_over_the_same_samples(every: ProbeResult) -> None:
    kinds = {other.probe: list(other.scores) for other in every.others}
    assert kinds == {
        "attentive": OWN,
        "efficient": OWN,
        "class_queries": OWN,
        "layer": OWN,
        "mixture": OWN,
        "batchnorm": [*OWN, "raw values"],
        "cls_mean": OWN,
    }
    assert all(score.accuracy.count == 20 for other in every.others for score in other.scores.values())
    assert dict((o.probe, o) for o in every.others)["batchnorm"].scores["raw values"].accuracy.value > 0.8
    for other in every.others:
        assert len(other.protocol) > 80


def test_k_nn_and_the_linear_probe_are_what_they_were(every: ProbeResult, bars: Any) -> None:
    alone = probe(build(), bars(), EvaluateSettings(), Reading(batch=16))
    assert alone.rows == every.rows
    assert alone.protocol == every.protocol
    assert alone.others == ()
    assert str(alone).splitlines() == [*str(every).splitlines()[:5], every.protocol]
    assert "others" not in alone.to_dict()


def test_repeated_it_is_the_same_to_the_last_bit(every: ProbeResult, bars: Any) -> None:
    before = torch.get_rng_state()
    again = probe(build(), bars(), EvaluateSettings(probes=EVERY), Reading(batch=16))
    assert again == every
    assert torch.equal(before, torch.get_rng_state())


def test_json_round_trip_and_table(every: ProbeResult) -> None:
    assert ProbeResult.from_dict(json.loads(json.dumps(every.to_dict(), allow_nan=False))) == every
    headings, rows = every.other_table()
    assert headings == ["probe", *OWN, "raw values"]
    assert [row[0] for row in rows][:2] == ["attentive, one query", "efficient probing"]
    assert rows[0][3] == "-"
    text = str(every)
    assert "attentive, one query: one learned query attends" in text


def test_a_probe_alone(model: MaskedAutoencoder, bars: Any) -> None:
    near = probe(model, bars(), EvaluateSettings(probes=("knn",)))
    assert near.table()[0] == ["features", "width", "k-NN"]
    assert "Linear probe" not in near.protocol
    alone = probe(model, bars(), EvaluateSettings(probes=("cls_mean",)))
    assert [row.knn for row in alone.rows] == [None] * 3
    assert str(alone).startswith("probe")
    assert ProbeResult.from_dict(alone.to_dict()) == alone


def test_folds_are_judged_together(model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bars()
    samples = {
        split: [{**sample, "group": f"{index % 2}"} for index, sample in enumerate(source.open(split))]
        for split in ("train", "val")
    }
    for split in samples:  # else a group is a class
        for index, sample in enumerate(samples[split]):
            sample["group"] = str(index // 2 % 2)
    monkeypatch.setattr(type(source), "open", lambda self, split: samples[split])
    settings = EvaluateSettings(probes=("class_queries", "layers"), protocol="folds")
    for other in probe(model, source, settings).others:
        assert all(score.accuracy.count == 60 for score in other.scores.values())


def test_layers_are_means_after_each_block_the_last_as_embed_gives_it() -> None:
    from tests.evaluation.conftest import Bars

    model = build().eval()
    signal = torch.stack([sample["signal"] for sample in Bars().open("val")])
    found = of_model(model, "x", "mean").look(signal, True)
    assert found.layers.shape == (20, 1, 16)
    assert torch.allclose(found.layers[:, -1], model.embed(signal), atol=1e-6)
    assert torch.allclose(found.class_token, model.embed(signal, "class"), atol=1e-6)
    assert torch.equal(found.tokens, model.encode(signal))
    assert not model.encoder.blocks[0]._forward_hooks


def test_the_best_layer_is_chosen_without_the_test_part() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    layers = torch.randn(80, 3, 4, generator=draw)
    layers[:60, 1, 0] += labels[:60] * 6.0  # tells the classes of the part fitted to
    layers[60:, 2, 0] += labels[60:] * 6.0  # and this one those of the test part alone
    rows, test = torch.arange(60), torch.arange(60, 80)
    score = judging._best_layer(layers, 0)(rows, labels[rows], test, labels[test], lambda *_: None)
    assert score.chosen.startswith("layer 2 of 3")
    assert score.detail["held out"][1] == 1.0
    assert score.accuracy.value < 0.8


def test_any_function_stands_beside_the_encoder(model: MaskedAutoencoder, bars: Any) -> None:
    rows_and_columns = of_callable(lambda values: torch.cat([values.mean(2), values.mean(3)], -1).flatten(1), "sums")
    result = probe(model, bars(), EvaluateSettings(probes=("knn", "linear", "attentive")), beside=[rows_and_columns])
    assert [row.name for row in result.rows] == [*OWN, "sums", "raw values"]
    assert result.rows[2].width == 16
    assert result.rows[2].linear.accuracy.value == 1.0
    assert list(result.others[0].scores) == OWN
    assert any("sums gives one vector per sample" in note for note in result.notes)


def test_tokens_that_don_t_fit_are_refused_before_anything_is_read(
    model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bars()
    monkeypatch.setattr(judging, "collect", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(DataError, match=r"evaluate\.token_memory"):
        probe(model, source, EvaluateSettings(probes=("attentive",), token_memory=1e-6))
    few = EvaluateSettings(probes=("attentive",), token_memory=1e-6, train_samples=2, val_samples=1)
    with pytest.raises(DataError, match=r"3 samples of 16 tokens of 16 values"):
        probe(model, source, few)


def test_no_class_token_no_labels_one_class(bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    plain = model.settings.encoder.model_copy(update={"class_token": False})
    without = MaskedAutoencoder(
        model.tokenizer, model.scheduler, model.objective, model.settings.model_copy(update={"encoder": plain})
    )
    with pytest.raises(ConfigError, match="no class token"):
        probe(without, bars(), EvaluateSettings(probes=("cls_mean",)))
    with pytest.raises(DataError, match="A probe needs labels"):
        probe(model, bars(labelled=False), EvaluateSettings(probes=("attentive",)))
    source = bars()
    samples = {split: [{**sample, "label": 1} for sample in source.open(split)] for split in ("train", "val")}
    monkeypatch.setattr(type(source), "open", lambda self, split: samples[split])
    for name in ("attentive", "layers", "batchnorm", "cls_mean"):
        with pytest.raises(DataError, match="2 classes or more"):
            probe(model, source, EvaluateSettings(probes=(name,)))


def test_an_encoder_without_layers_is_left_out_of_that_probe_aloud(model: MaskedAutoencoder, bars: Any) -> None:
    own = of_model(model, "flat", "mean")
    flat = replace(own, look=lambda signal, layers: own.look(signal, False))
    result = probe(model, bars(), EvaluateSettings(probes=("layers",)), beside=[flat])
    assert all(list(other.scores) == OWN for other in result.others)
    assert any("flat gives no layers" in note for note in result.notes)
