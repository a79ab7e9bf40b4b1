"""The map of features, the confusion matrix, the nearest neighbours: what they are made of, how they are shown."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch
from sklearn.decomposition import PCA

from maskedmodel.evaluation.classifiers import knn_predict
from maskedmodel.evaluation.landscape import Landscape, flat, survey
from maskedmodel.report import landscape as page


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
