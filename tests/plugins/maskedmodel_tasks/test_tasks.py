"""The tasks: the conformance kit, losses and metrics by hand, and a fine-tuned ViT against timm's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from maskedmodel_tasks.classify import Classify
from maskedmodel_tasks.regress import Regress
from maskedmodel_tasks.segment import Segment
from maskedmodel_tasks.tag import Tag
from sklearn.metrics import jaccard_score, roc_auc_score

from maskedmodel import FineTuned
from maskedmodel.engine.settings import EncoderOnly
from maskedmodel.errors import ConfigError, PluginError, ShapeError
from maskedmodel.tasks import Chart, Encoded, Labels
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, generator
from maskedmodel.testing.rules import CheckFailed
from maskedmodel.testing.tasks import check_shown
from maskedmodel.weights.vit import from_timm


@parametrize_checks(
    [
        Classify,
        Classify(pool="class", smoothing=0.0, class_weights="balanced"),
        Tag,
        Tag(pool="class", threshold=0.3),
        Regress,
        Regress(loss="huber"),
        Segment,
        Segment(head="upsample", class_weights="balanced"),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def attached(task: Classify | Tag | Regress, names: tuple[str, ...], counts: tuple[int, ...]) -> None:
    task.attach(Box(), 8, Labels(names, counts))


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_a_fine_tuned_model_computes_what_timms_does(pool: str) -> None:
    """As MAE is fine-tuned in timm: the mean of patch tokens and a fresh norm, or the class token behind its norm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = timm.models.VisionTransformer(
            img_size=24, patch_size=6, embed_dim=32, depth=3, num_heads=2, num_classes=5,
            global_pool="avg" if pool == "mean" else "token",
        ).eval()  # fmt: skip
        backbone = timm.models.VisionTransformer(
            img_size=24, patch_size=6, embed_dim=32, depth=3, num_heads=2, num_classes=0, global_pool="token"
        ).eval()
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    backbone.load_state_dict({**backbone.state_dict(), **_without_head(theirs.state_dict())})
    encoder = from_timm(backbone)
    names = tuple("abcde")
    settings = EncoderOnly(encoder=encoder.settings.encoder)
    model = FineTuned(encoder.tokenizer, Classify(pool=pool), settings, Labels(names, (1,) * 5)).eval()
    model.encoder.load_state_dict(encoder.encoder.state_dict())
    model.task.head.load_state_dict(theirs.head.state_dict())
    if pool == "mean":
        model.task.norm.load_state_dict(theirs.fc_norm.state_dict())
    pictures = torch.rand(4, 3, 24, 24, generator=generator())
    mean, std = (x.reshape(-1, 1, 1) for x in (encoder.tokenizer.mean, encoder.tokenizer.std))
    with torch.no_grad():
        torch.testing.assert_close(model(pictures), theirs((pictures - mean) / std), rtol=1e-5, atol=1e-5)


def _without_head(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "fc_norm."))}


def test_cross_entropy_with_smoothing_by_hand() -> None:
    task = Classify(smoothing=0.1)
    attached(task, ("a", "b"), (1, 1))
    prediction = torch.tensor([[2.0, 0.0]])
    log = [-math.log(1 + math.exp(-2)), -2 - math.log(1 + math.exp(-2))]
    expected = -(0.95 * log[0] + 0.05 * log[1])
    assert float(task.loss(prediction, torch.tensor([0]))) == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_are_one_over_the_size_of_a_class() -> None:
    task = Classify(class_weights="balanced")
    attached(task, ("a", "b", "never"), (6, 2, 0))
    assert task.weight(torch.tensor([0, 1])).tolist() == pytest.approx([8 / 12, 2.0])


def test_metrics_of_classes_by_hand() -> None:
    task = Classify()
    attached(task, ("a", "b"), (3, 3))
    prediction = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.5], [0.0, 2.0]])
    found = task.metrics(prediction, torch.tensor([0, 0, 0, 1]))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["auc"] == 1.0
    by_class, confusion = task.tables(prediction, torch.tensor([0, 0, 0, 1]))
    assert by_class.rows[0] == ("a", 1.0, pytest.approx(2 / 3), pytest.approx(0.8), 3)
    assert confusion.rows == (("a", 2, 1), ("b", 0, 1))
    columns = task.columns(prediction)
    assert columns["label"] == ["a", "a", "b", "b"]
    torch.testing.assert_close(columns["p_a"] + columns["p_b"], torch.ones(4))
    assert math.isnan(task.metrics(prediction[:2], torch.tensor([0, 0]))["auc"])


def test_the_area_under_the_curve_is_scikit_learns() -> None:
    """With ties, uneven classes and one class that no sample has."""
    task = Classify()
    attached(task, ("a", "b", "c", "never"), (1, 1, 1, 1))
    target = torch.tensor([0] * 20 + [1] * 5 + [2] * 2)
    prediction = torch.randn(27, 4, generator=generator()).mul(2).round()
    shares = prediction.softmax(1)
    areas = [roc_auc_score((target == label).numpy(), shares[:, label].numpy()) for label in range(3)]
    assert task.metrics(prediction, target)["auc"] == pytest.approx(sum(areas) / 3, abs=1e-12)


def test_tags_are_read_out_of_labels() -> None:
    task = Tag()
    attached(task, ("dog|rain", "rain", "cat | dog"), (1, 1, 1))
    assert task.names == ("cat", "dog", "rain")
    target = task.target(torch.tensor([0, 1, 2]))
    assert target.tolist() == [[0, 1, 1], [0, 0, 1], [1, 1, 0]]
    prediction = torch.where(target > 0, 2.0, -2.0)
    assert task.metrics(prediction, target) == {"mAP": 1.0, "f1": 1.0, "f1_macro": 1.0}
    assert task.columns(prediction)["tags"] == ["dog|rain", "rain", "cat|dog"]
    prediction[0, 0] = 3.0  # of the two samples that are said to be cats one is
    assert task.metrics(prediction, target)["mAP"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert task.metrics(prediction, target)["f1"] == pytest.approx(10 / 11)
    (by_tag,) = task.tables(prediction, target)
    assert [row[0] for row in by_tag.rows] == ["cat", "dog", "rain"]
    assert by_tag.rows[0][1:] == (0.5, pytest.approx(2 / 3), 1)
    assert by_tag.rows[1][1:] == (1.0, 1.0, 2)
    with pytest.raises(ConfigError, match="No sample has more than one tag"):
        attached(Tag(separator=","), ("a|b", "a"), (1, 1))


def test_numbers_are_predicted_in_units_of_their_spread() -> None:
    task = Regress()
    attached(task, ("1", "3"), (3, 1))
    assert float(task.mean) == 1.5
    assert float(task.spread) == pytest.approx(math.sqrt(0.75))
    target = task.target(torch.tensor([0, 1]))
    assert target.tolist() == [[1.0], [3.0]]
    perfect = (target - task.mean) / task.spread
    assert task.loss(perfect, target).tolist() == [0.0, 0.0]
    assert float(task.loss(perfect + 2, target)[0]) == pytest.approx(4.0)
    assert task.metrics(perfect, target) == {"R2": 1.0, "MAE": 0.0}
    torch.testing.assert_close(task.columns(perfect)["value"], torch.tensor([1.0, 3.0]))
    mean = torch.zeros(2, 1)  # always the mean of the training labels: errors 0.5 and 1.5 about a mean of 2
    assert task.metrics(mean, target) == {"R2": pytest.approx(1 - 2.5 / 2), "MAE": 1.0}


def test_several_numbers_and_what_is_none() -> None:
    task = Regress()
    attached(task, ("1;10", "2;30"), (1, 1))
    assert task.target(torch.tensor([1])).tolist() == [[2.0, 30.0]]
    assert set(task.columns(torch.zeros(1, 2))) == {"value_0", "value_1"}
    for names, text in ((("1", "cat"), "no number"), (("1", "1;2"), "equally many"), (("nan", "1"), "no number")):
        with pytest.raises(ConfigError, match=text):
            attached(Regress(), names, (1, 1))
    with pytest.raises(ConfigError, match="the same for every"):
        attached(Regress(), ("1", "2"), (4, 0))


def segment(**settings: Any) -> Segment:
    task = Segment(**settings)
    task.attach(Box(), 8, Labels(("a", "b", "c"), (60, 30, 10)))
    return task


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_loss_of_a_batch_is_torchs_over_all_its_labelled_pixels(class_weights: str) -> None:
    """However unevenly labels are spread over the samples, and of a sample without any, nothing."""
    task = segment(class_weights=class_weights)
    prediction = torch.randn(3, 3, 5, 7, generator=generator())
    target = torch.randint(-1, 3, (3, 5, 7), generator=generator(1))
    target[0, :, 2:] = -1
    target[2] = -1
    weight = task.weight(target)
    found = (task.loss(prediction, target) * weight).sum() / weight.sum()
    expected = torch.nn.functional.cross_entropy(prediction, target, task.weights, ignore_index=-1)
    torch.testing.assert_close(found, expected)
    assert weight[2] == 0
    if class_weights == "balanced":
        assert task.weights.tolist() == pytest.approx([100 / 180, 100 / 90, 100 / 30])


def test_unlabelled_pixels_get_no_gradient() -> None:
    task = segment()
    prediction = torch.randn(2, 3, 4, 4, generator=generator()).requires_grad_()
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    target[:, 1:3] = -1
    (task.loss(prediction, target) * task.weight(target)).sum().backward()
    assert prediction.grad is not None
    assert not prediction.grad[:, :, 1:3].any()
    assert prediction.grad[:, :, 0].abs().min() > 0


def test_metrics_of_pixels_are_scikit_learns() -> None:
    task = segment()
    prediction = torch.randn(4, 3, 6, 5, generator=generator())
    target = torch.randint(-1, 2, (4, 6, 5), generator=generator(1))
    found = task.metrics(*task.digest(prediction, target))
    guess, there = prediction.argmax(1), target >= 0
    true, said = target[there].numpy(), guess[there].numpy()
    assert found["mIoU"] == pytest.approx(jaccard_score(true, said, average="macro"), abs=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(float((true == said).mean()), abs=1e-12)
    by_class, confusion = task.tables(*task.digest(prediction, target))
    assert by_class.rows[1][1] == pytest.approx(jaccard_score(true, said, average=None)[1], abs=1e-12)
    assert by_class.rows[0][4] == int((true == 0).sum())
    assert sum(confusion.rows[0][1:]) == pytest.approx(1)


@pytest.mark.parametrize("box", [Box(), Box(axes=("time",), size=(48,), patch=(6,), channels=2, separate=True)])
@pytest.mark.parametrize("head", ["pixels", "upsample"])
def test_scores_of_a_pixel_come_from_its_token(box: Box, head: str) -> None:
    """A token's latent changes the scores of its own pixels, with `upsample` of those beside it, too, and no others."""
    task = Segment(head=head)
    task.attach(box, 8, Labels(("a", "b"), (1, 1)))
    tokens = box.tokenize(box.example(1, generator()))
    latent = torch.randn(1, tokens.length, 8, generator=generator(1)).requires_grad_()
    scores = task(Encoded(latent, 0, False, tokens, torch.arange(tokens.length)[None]))
    assert tuple(scores.shape) == (1, 2, *box.size)
    middle = [extent // 2 for extent in box.size]
    scores[(0, 0, *middle)].backward()
    assert latent.grad is not None
    reached = latent.grad[0].abs().sum(1).gt(0)
    own = (tokens.coords == torch.tensor([m // p for m, p in zip(middle, box.patch, strict=True)])).all(1)
    assert bool(reached[own].all())
    assert not bool(reached[~own].any()) if head == "pixels" else int(reached.sum()) < tokens.length


def test_ragged_tokens_find_their_places() -> None:
    """Shuffled, with padding: the same as all of them in order."""
    box, dim = Box(), 8
    tokens = box.tokenize(box.example(2, generator()))
    latent = torch.randn(2, tokens.length, dim, generator=generator(1))
    whole = Encoded(latent, 0, False, tokens, torch.arange(tokens.length).expand(2, -1)).on_grid(box.extents)
    order = torch.randperm(tokens.length, generator=generator(2))
    ids = torch.cat([order, order[:2]])[None].expand(2, -1)
    valid = torch.ones(ids.shape, dtype=torch.bool)
    valid[:, -2:] = False
    shuffled = Encoded(latent[:, ids[0]], 0, False, tokens, ids, valid).on_grid(box.extents)
    torch.testing.assert_close(shuffled, whole)
    with pytest.raises(ShapeError, match="outside the grid"):
        Encoded(latent[:, ids[0]], 0, False, replace(tokens, grid=None), ids, valid).on_grid((2, 2))


def test_segment_refuses_one_class_and_tokens_without_boxes() -> None:
    with pytest.raises(ConfigError, match="one class"):
        Segment().attach(Box(), 8, Labels(("a", "b"), (5, 0)))


def test_colours_and_legend_of_places() -> None:
    task = segment()
    painted = task.paint(torch.tensor([[[0, 1, -1]]]))
    assert painted is not None
    assert tuple(painted.shape) == (1, 3, 1, 3)
    assert painted[0, :, 0, 2].tolist() == [1, 1, 1]
    assert task.legend == "a: dark blue, b: orange, c: light blue; white: no label."


def test_what_is_most_wrong_and_what_is_said_of_it() -> None:
    task = Classify()
    attached(task, ("cat", "dog"), (3, 3))
    logits = torch.tensor([[0.0, math.log(3)], [2.0, 0.0], [math.log(9), 0.0]])
    truth = torch.tensor([1, 0, 1])
    torch.testing.assert_close(task.wrongness(logits, truth), torch.tensor([0.0, 0.0, 0.9]))
    assert task.told(logits, truth)[2] == "is dog, said cat (90%)"
    assert task.charts(logits, truth) == []

    tag = Tag()
    attached(tag, ("a", "a|b", "b|c"), (2, 2, 2))
    logits = torch.tensor([[3.0, -3.0, -3.0], [-3.0, -3.0, -3.0]])
    truth = torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]])
    wrong = tag.wrongness(logits, truth)
    assert wrong[0] == 0
    assert wrong[1] > 1
    assert tag.told(logits, truth) == ["is a, said a", "is b|c, said none"]
    scores = torch.tensor([[3.0, 1, 0], [-3, 2, 0], [0, 0, 5]])
    (chart,) = tag.charts(scores, torch.tensor([[1.0, 1, 1], [0, 0, 1], [0, 1, 1]]))
    assert chart.names == ("a", "b", "c")
    assert chart.y[0] == 1
    assert 0 < chart.y[1] < 1
    assert math.isnan(chart.y[2])  # every sample has it

    regress = Regress()
    attached(regress, ("1;10", "3;30"), (1, 1))
    truth = regress.target(torch.tensor([0, 1]))
    guess = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # the mean of both, and the second itself
    torch.testing.assert_close(regress.wrongness(guess, truth), torch.tensor([1.0, 0.0]))
    assert regress.told(guess, truth) == ["is 1;10, said 2;20", "is 3;30, said 3;30"]
    found = [(chart.x, chart.y, chart.diagonal) for chart in regress.charts(guess, truth)]
    assert found == [((1, 3), (2, 3), True), ((10, 30), (20, 30), True)]


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ({"told": lambda *given: ["only one"]}, "one text per sample"),
        ({"wrongness": lambda task, prediction, target: -torch.ones(len(target))}, "0 or above per sample"),
        ({"charts": lambda *given: ["no chart"]}, "isn't a Chart"),
    ],
)
def test_the_kit_finds_a_report_that_breaks_the_contract(broken: dict[str, Any], text: str) -> None:
    kind = type("Broken", (Classify,), broken)
    with pytest.raises(CheckFailed, match=text):
        check_shown(kind())


def test_a_chart_has_an_x_or_a_name_for_each_y() -> None:
    with pytest.raises(PluginError, match="an x or a name"):
        Chart("c", y=[1.0, 2.0], x=[1.0])
    with pytest.raises(PluginError, match="an x or a name"):
        Chart("c", y=[1.0], x=[1.0], names=["a"])
