from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from maskedmodel import MaskedAutoencoder
from maskedmodel.errors import DataError, DependencyError
from maskedmodel.evaluation import features as module
from maskedmodel.evaluation.features import Features, collect, evaluating, extract, flat_tokens, joined, raw, save
from maskedmodel.training.data import Reading


@pytest.fixture
def small() -> Features:
    values = torch.tensor([[0.1, -2.5e-7], [1 / 3, 4e8], [0.0, 1.0]])
    return Features(values, torch.tensor([1, 0, 1]), ("a", 'b,"c"', "\u00e9"))


def test_extract_gives_what_embed_gives_in_the_order_of_the_data(model: MaskedAutoencoder, bars: Any) -> None:
    data = bars().open("train")
    seen: list[tuple[int, int]] = []
    features = extract(model, data, Reading(batch=7), progress=lambda done, total: seen.append((done, total)))
    signals = torch.stack([sample["signal"] for sample in data])
    with torch.no_grad():
        torch.testing.assert_close(features.values, model.embed(signals))
    assert features.ids == tuple(sample["id"] for sample in data)
    assert features.labels is not None
    assert features.labels.tolist() == [sample["label"] for sample in data]
    assert seen[0] == (7, 40)
    assert seen[-1] == (40, 40)
    assert not features.values.is_inference()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")], ids=["ram", "cuda"])
def test_where_memory_runs_out_fewer_rows_at_a_time_give_the_same(
    model: MaskedAutoencoder, bars: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    data, most = bars().open("train"), 3
    expected = extract(model, data, Reading(batch=8))
    seen = []

    def tight(signal: torch.Tensor) -> torch.Tensor:
        seen.append(len(signal))
        if len(signal) > most:
            raise error
        return model.embed(signal)

    with evaluating(model), caplog.at_level("WARNING"):
        found = collect(data, model.tokenizer, {"": tight}, Reading(batch=8))[""]
    assert torch.allclose(found.values, expected.values, atol=1e-6)
    assert found.ids == expected.ids
    assert seen[:4] == [8, 4, 2, 2]  # and never more than two again
    assert max(seen[2:]) == 2
    assert [record.message for record in caplog.records] == [
        f"Out of memory: going on with {rows} samples at a time." for rows in (4, 2)
    ]
    most = 0
    with evaluating(model), pytest.raises(DataError, match="features of one sample"):
        collect(data, model.tokenizer, {"": tight}, Reading(batch=8))


def test_class_token_features_differ_from_the_mean(model: MaskedAutoencoder, bars: Any) -> None:
    data = bars().open("val")
    assert not torch.allclose(extract(model, data, pool="class").values, extract(model, data, pool="mean").values)


def test_tokens_are_rows_of_their_own(model: MaskedAutoencoder, bars: Any) -> None:
    data = bars().open("val")
    found = extract(model, data, Reading(batch=6), pool="tokens", layer=1)
    signals = torch.stack([sample["signal"] for sample in data])
    with torch.no_grad():
        every = model.encode(signals, 1)
    torch.testing.assert_close(found.values, every.flatten(0, 1))
    length = every.shape[1]
    assert found.ids == tuple(sample["id"] for sample in data for _ in range(length))
    assert found.tokens is not None
    assert found.labels is not None
    assert found.tokens.tolist() == list(range(length)) * len(data)
    assert found.labels.tolist() == [sample["label"] for sample in data for _ in range(length)]
    twice = joined([found, found])
    assert twice.tokens is not None
    assert len(twice.tokens) == 2 * len(found.ids)


def test_of_ragged_signals_only_real_tokens_have_rows() -> None:
    real = torch.tensor([[True, True, False], [True, False, True]])
    whole = Features(torch.arange(12.0).reshape(2, 6), torch.tensor([4, 5]), ("a", "b"), ("g", "h"))
    found = module._by_token(whole, real)
    assert found.values.tolist() == [[0, 1], [2, 3], [6, 7], [10, 11]]
    assert (found.ids, found.groups) == (("a", "a", "b", "b"), ("g", "g", "h", "h"))
    assert found.labels is not None
    assert found.tokens is not None
    assert (found.labels.tolist(), found.tokens.tolist()) == ([4, 4, 5, 5], [0, 1, 0, 2])


def test_too_many_tokens_are_refused_at_once(
    model: MaskedAutoencoder, bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TOKENS", 1000)
    with pytest.raises(DataError, match="too many for one file"):
        extract(model, bars().open("val"), pool="tokens")


def test_what_was_done_goes_with_the_features(tmp_path: Path) -> None:
    features = Features(torch.ones(2, 1), None, ("a", "a"), tokens=torch.tensor([0, 1]))
    about = {"pool": "tokens", "layer": -2}
    kept = parquet.read_table(save(features, tmp_path / "f.parquet", about))
    assert json.loads(kept.schema.metadata[b"maskedmodel"]) == about
    assert (kept.column_names, kept["token"].to_pylist()) == (["id", "token", "feature"], [0, 1])
    with np.load(save(features, tmp_path / "f.npz", about), allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"])) == about
        assert arrays["token"].tolist() == [0, 1]
    path = save(features, tmp_path / "f.csv", about)
    assert path.read_text() == "id,token,f0\na,0,1\na,1,1\n"
    assert json.loads((tmp_path / "f.csv.json").read_text()) == about


def test_limit_spreads_over_the_data(model: MaskedAutoencoder, bars: Any) -> None:
    assert extract(model, bars().open("train"), Reading(limit=4)).ids == ("train-0", "train-10", "train-20", "train-30")


def test_every_module_gets_its_mode_back_even_after_an_error(model: MaskedAutoencoder) -> None:
    model.train()
    model.decoder.eval()

    def fail() -> None:
        with evaluating(model):
            assert not any(part.training for part in model.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    assert model.encoder.training
    assert not any(part.training for part in model.decoder.modules())


def test_unlabelled_data_gives_no_labels(model: MaskedAutoencoder, bars: Any) -> None:
    assert extract(model, bars(labelled=False).open("val")).labels is None


def test_no_sample_is_an_error(model: MaskedAutoencoder) -> None:
    with pytest.raises(DataError, match="no sample"):
        extract(model, [])


def test_raw_is_the_flattened_token_values(model: MaskedAutoencoder, bars: Any) -> None:
    data = bars().open("val")
    signals = torch.stack([sample["signal"] for sample in data])
    values = raw(model.tokenizer, data, Reading(batch=6)).values
    torch.testing.assert_close(values, flat_tokens(model.tokenizer, signals))
    assert values.shape == (20, 64)


def test_ragged_rows_are_filled_up_with_zeros(model: MaskedAutoencoder, bars: Any) -> None:
    widths = iter([2, 5])
    view = {"x": lambda signal: torch.ones(len(signal), next(widths))}
    values = collect(bars().open("val"), model.tokenizer, view, Reading(batch=10))["x"].values
    assert values.shape == (20, 5)
    assert values.sum().item() == 10 * 2 + 10 * 5


def test_equal_signals_have_equal_digests(model: MaskedAutoencoder, bars: Any) -> None:
    source, view = bars(doubled=2), {"x": lambda signal: signal.flatten(1)}
    train = collect(source.open("train"), model.tokenizer, view, Reading(batch=9), digests=True)["x"]
    test = collect(source.open("val"), model.tokenizer, view, Reading(batch=9), digests=True)["x"]
    assert len(set(train.digests)) == 40
    assert [digest in train.digests for digest in test.digests] == [True] * 2 + [False] * 18


def test_joined_marks_samples_without_a_label(model: MaskedAutoencoder, bars: Any) -> None:
    train, val = (extract(model, bars().open(split)) for split in ("train", "val"))
    both = joined([train, val])
    assert both.ids == train.ids + val.ids
    assert both.labels is not None
    assert len(both.labels) == len(both.values) == 60
    unlabelled = extract(model, bars(labelled=False).open("val"))
    mixed = joined([train, unlabelled]).labels
    assert mixed is not None
    assert mixed.tolist() == [*train.labels.tolist(), *[-1] * 20]  # type: ignore[union-attr]
    assert joined([unlabelled, unlabelled]).labels is None


def test_parquet(small: Features, tmp_path: Path) -> None:
    table = parquet.read_table(save(small, tmp_path / "f.parquet"))
    assert table.column_names == ["id", "label", "feature"]
    assert str(table.schema.field("feature").type).startswith("fixed_size_list<")
    assert table["id"].to_pylist() == list(small.ids)
    assert table["label"].to_pylist() == [1, 0, 1]
    assert np.array_equal(np.array(table["feature"].to_pylist(), np.float32), small.values.numpy())


def test_npz_needs_no_pickle(small: Features, tmp_path: Path) -> None:
    with np.load(save(small, tmp_path / "f.npz"), allow_pickle=False) as arrays:
        assert arrays["id"].tolist() == list(small.ids)
        assert arrays["label"].tolist() == [1, 0, 1]
        assert np.array_equal(arrays["feature"], small.values.numpy())


def test_csv_gives_the_same_float32_back(small: Features, tmp_path: Path) -> None:
    with save(small, tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["id", "label", "f0", "f1"]
    assert [row[0] for row in rows] == list(small.ids)
    assert np.array_equal(np.array([row[2:] for row in rows], np.float32), small.values.numpy())


def test_a_file_name_is_no_formula_in_a_csv(tmp_path: Path) -> None:
    features = Features(torch.tensor([[-1.0]] * 3), None, ["=cmd|x", "-1.png", "a.png"])
    with save(features, tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        assert [row for row in csv.reader(file)][1:] == [["'=cmd|x", "-1"], ["'-1.png", "-1"], ["a.png", "-1"]]


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
def test_without_labels_there_is_no_label_column(suffix: str, tmp_path: Path) -> None:
    path = save(Features(torch.ones(2, 1), None, (3, 4)), tmp_path / f"f{suffix}")
    if suffix == ".parquet":
        table = parquet.read_table(path)
        assert (table.column_names, table["id"].to_pylist()) == (["id", "feature"], [3, 4])
    elif suffix == ".npz":
        with np.load(path) as arrays:
            assert (sorted(arrays), arrays["id"].tolist()) == (["feature", "id"], [3, 4])
    else:
        assert path.read_bytes() == b"id,f0\n3,1\n4,1\n"


def test_an_unknown_suffix_names_the_known_ones(small: Features, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.parquet, \.npz, \.csv"):
        save(small, tmp_path / "f.pkl")


def test_a_missing_folder_is_an_error(small: Features, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        save(small, tmp_path / "none" / "f.csv")


def test_a_full_disk_leaves_the_old_file_alone(
    small: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.npz"
    path.write_bytes(b"old")

    def full(*arguments: Any, **values: Any) -> None:
        arguments[0].write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.np, "savez", full)
    with pytest.raises(DataError, match="No space left"):
        save(small, path)
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]
    assert path.read_bytes() == b"old"


def test_without_pyarrow_the_error_says_what_to_install(
    small: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"uv sync --extra parquet(.|\n)*pip install -e"):
        save(small, tmp_path / "f.parquet")
    assert list(tmp_path.iterdir()) == []
