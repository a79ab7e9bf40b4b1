"""The map of features, the confusion matrix, the nearest neighbours: what they are made of, how they are shown."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from maskedmodel import DataSource, Sample
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.errors import DependencyError
from maskedmodel.evaluation.classifiers import knn_predict
from maskedmodel.evaluation.landscape import Landscape, flat, survey
from maskedmodel.evaluation.outcome import ProbeResult
from maskedmodel.evaluation.probes import probe
from maskedmodel.evaluation.thumbnails import Thumbnails, thumbnails
from maskedmodel.report import landscape as page
from maskedmodel.training.data import Reading
from tests.evaluation.conftest import Grey, GreySettings, build


def blobs(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % 3
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 5, generator=draw) + 2.5 * torch.eye(3, 5)[labels], labels


@pytest.fixture
def found() -> Landscape:
    x, labels = blobs()
    fold = torch.arange(40), torch.arange(40, 60)
    ids = [f"s{number}" for number in range(60)]
    names = ["cat", "<dog>", "cow"]
    return survey("trained encoder", x, ids, labels, fold, names, neighbours=5, temperature=0.07, method="pca", seed=0)


def test_the_map_is_pca_and_never_mirrored() -> None:
    x, _ = blobs()
    places, shares = flat(x, "pca", 0)
    model = PCA(2).fit(x.double().numpy())
    expected = torch.from_numpy(model.transform(x.double().numpy()))
    assert torch.allclose(places.abs(), expected.abs(), atol=1e-8)
    assert shares == pytest.approx(model.explained_variance_ratio_.tolist())
    for axis in places.T:
        assert axis[axis.abs().argmax()] > 0


def test_one_value_or_equal_features_make_a_map_too() -> None:
    places, shares = flat(torch.arange(4.0)[:, None], "pca", 0)
    assert places.shape == (4, 2)
    assert not places[:, 1].any()
    assert flat(torch.ones(5, 3), "pca", 0)[1] == [0, 0]
    assert shares[0] == pytest.approx(1)


def test_t_sne_is_keyed_by_the_seed() -> None:
    x, _ = blobs(30)
    places, shares = flat(x, "tsne", 3)
    assert places.shape == (30, 2)
    assert shares == []
    assert torch.equal(places, flat(x, "tsne", 3)[0])


def test_confusion_counts_what_k_nn_says(found: Landscape) -> None:
    x, labels = blobs()
    taken = knn_predict(x[:40], labels[:40], x[40:], 5, 0.07)
    for row in range(3):
        for column in range(3):
            assert found.confusion[row][column] == int(((labels[40:] == row) & (taken == column)).sum())
    assert sum(map(sum, found.confusion)) == 20
    assert found.classes == {"0": "cat", "1": "<dog>", "2": "cow"}


def test_neighbours_are_the_most_similar_training_samples(found: Landscape) -> None:
    x, labels = blobs()
    name, label, near = found.near[0]
    assert (name, label) == ("s40", int(labels[40]))
    similarity = torch.nn.functional.cosine_similarity(x[40], x[:40])
    order = similarity.argsort(descending=True)[:5].tolist()
    assert [one[0] for one in near] == [f"s{index}" for index in order]
    assert near[0][2] == pytest.approx(float(similarity.max()), abs=1e-4)


def test_json_round_trip(found: Landscape) -> None:
    assert Landscape.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_the_page_names_each_sample_and_escapes_it(found: Landscape) -> None:
    html = page.section(found, "map-0")
    assert html.count("<circle") == 20 + 3
    assert "<title>s40: &lt;dog&gt;</title>" in html
    assert "<dog>" not in html
    assert "cat taken for cat" in html
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ET.fromstring(drawing)  # well-formed
    assert "PCA of the features, trained encoder" in html
    assert "t-SNE" in page.section(replace(found, method="tsne", shares=()), "map-1")


def test_many_classes_have_a_map_but_no_matrix(found: Landscape) -> None:
    many = replace(found, classes={str(n): str(n) for n in range(30)}, confusion=((0,) * 30,) * 30)
    html = page.section(many, "map-0")
    assert "taken for" not in html
    assert len({page.colour(number) for number in range(30)}) == 30


class Squares(DataSource[GreySettings]):
    """Grey pictures of one brightness each, by which they are known."""

    def open(self, split: Literal["train", "val"]) -> list[Sample]:
        first, count = (0, 30) if split == "train" else (30, 20)
        return [
            Sample(signal=torch.full((1, 8, 8), row / 50), id=f"{split}-{row}", label=row % 2)
            for row in range(first, first + count)
        ]

    def class_names(self) -> list[str]:
        return ["even", "odd"]


def tile_of(tiles: Thumbnails, row: int) -> np.ndarray[Any, Any]:
    corner = tiles.corner(row)
    assert corner is not None
    whole = Image.open(io.BytesIO(base64.b64decode(tiles.data)))
    assert whole.size == tiles.size
    return np.asarray(whole.crop((*corner, corner[0] + tiles.width, corner[1] + tiles.height)))


def test_every_sample_shown_has_its_own_small_picture() -> None:
    result = probe(build(), Squares(), EvaluateSettings(few_labels=()), Reading(batch=7))
    seen = result.landscape
    assert seen is not None
    assert seen.tiles is not None
    assert set(seen.rows) == set(range(30, 50))
    assert [ids[0] for ids in seen.near] == [f"val-{rows[0]}" for rows in seen.near_rows]
    for (_, _, near), rows in zip(seen.near, seen.near_rows, strict=True):
        assert [name for name, _, _ in near] == [f"train-{row}" for row in rows[1:]]
    assert set(seen.tiles.rows) == {*seen.rows, *(row for rows in seen.near_rows for row in rows)}
    for row in seen.tiles.rows:
        assert np.abs(tile_of(seen.tiles, row).astype(int) - round(row / 50 * 255)).max() <= 6
    assert (seen.tiles.width, seen.tiles.height) == (8, 8)
    assert seen.tiles.corner(99) is None
    assert ProbeResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_without_them_an_older_file_is_read(found: Landscape) -> None:
    older = {name: value for name, value in found.to_dict().items() if name not in ("rows", "near_rows", "tiles")}
    again = Landscape.from_dict(json.loads(json.dumps(older)))
    assert (again.rows, again.near_rows, again.tiles) == ((), (), None)
    assert page.section(again, "map-0") == page.section(found, "map-0")


@pytest.mark.parametrize("size", [(3, 300, 300), (3, 40, 400), (3, 5, 3)])
def test_large_samples_keep_within_the_bound(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [Sample(signal=torch.rand(1, 8, 8, generator=generator), id=index) for index in range(90)]
    tokenizer = Grey()
    monkeypatch.setattr(Grey, "picture", lambda self, signal: torch.rand(len(signal), *size, generator=generator))
    tiles = thumbnails(range(90), [(noise, 90)], tokenizer, Reading(batch=32), most=30_000)
    assert tiles is not None
    assert len(base64.b64decode(tiles.data)) <= 30_000
    assert tiles.width / tiles.height == pytest.approx(min(max(size[2] / size[1], 0.25), 4), rel=0.4)
    assert thumbnails(range(90), [(noise, 90)], tokenizer, Reading(batch=32), most=100) is None
    assert thumbnails([], [(noise, 90)], tokenizer, Reading()) is None


def test_the_page_shows_them_where_one_points_without_a_script() -> None:
    seen = probe(build(), Squares(), EvaluateSettings(few_labels=()), Reading(batch=7)).landscape
    assert seen is not None
    assert seen.tiles is not None
    kept: dict[str, str] = {}
    html = page.section(seen, "map-0", kept)
    tree = ET.fromstring(f'<div xmlns:xlink="x">{html}</div>')
    images = tree.findall(".//image")
    assert [image.get("id") for image in images] == ["map-0-tiles"]
    assert html.count('<use href="#map-0-tiles"/>') == 20 + sum(map(len, seen.near_rows))
    assert "<script" not in html
    for group in tree.findall(".//g"):
        name = next(iter(group.itertext())).split(":")[0]
        left, top = seen.tiles.corner(int(name.split("-")[1])) or (None, None)
        (drawn,) = group.findall("svg")
        assert drawn.get("viewBox") == f"{left} {top} 8 8"
        assert drawn.get("class") == "seen"
    # The same pictures again are taken from where they stand; too many of them are left out with a word.
    again = page.section(seen, "map-1", kept)
    assert "data:image" not in again
    assert '<use href="#map-0-tiles"/>' in again
    other = replace(seen, tiles=replace(seen.tiles, data=seen.tiles.data + "A" * page._ROOM))
    full = page.section(other, "map-2", kept)
    assert "had no room on this page" in full
    assert "<use" not in full


def test_umap_is_used_where_it_is_and_named_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = blobs(30)
    asked: dict[str, Any] = {}

    class Made:
        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def fit_transform(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return values[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Made))
    places, shares = flat(x, "umap", 3)
    assert (places.shape, shares) == ((30, 2), [])
    assert (asked["random_state"], asked["n_neighbors"]) == (3, 15)
    monkeypatch.setitem(sys.modules, "umap", None)
    settings = EvaluateSettings(map="umap")
    with pytest.raises(DependencyError, match=r"umap-learn(.|\n)*evaluate.map=tsne"):
        probe(build(), Squares(), settings, Reading(batch=7))


def test_the_page_names_umap(found: Landscape) -> None:
    assert "UMAP of the features" in page.section(replace(found, method="umap", shares=()), "map-1")
