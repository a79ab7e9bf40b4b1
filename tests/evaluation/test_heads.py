"""The heads of probes, against the plain way of writing them down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from maskedmodel.evaluation import heads


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_query_is_multi_head_cross_attention_with_an_mlp() -> None:
    torch.manual_seed(0)
    head, x = heads.Attentive(128, 5), drawn(3, 7, 128)
    assert head.heads == 2
    normed = F.layer_norm(x, (128,))
    q = head.ask(head.query).expand(3, 1, 128)
    k, v = head.key(normed), head.value(normed)
    q, k, v = (t.view(3, -1, 2, 64).transpose(1, 2) for t in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0]
    y = head.query + mixed
    expected = head.out(y + head.mlp(F.layer_norm(y, (128,))))
    assert torch.allclose(head(x), expected, atol=1e-5)


def test_efficient_probing_gathers_a_part_of_the_values_per_query() -> None:
    torch.manual_seed(0)
    head, x = heads.Efficient(12, 4).eval(), drawn(2, 5, 12)
    assert head.queries.shape == (12, 12)
    expected = torch.empty(2, 12)
    for query in range(12):
        attention = (x @ head.queries[query] / 12**0.5).softmax(1)
        expected[:, query] = (attention[..., None] * head.value(x)).sum(1)[:, query]
    assert torch.allclose(head(x), head.out(head.norm(expected)), atol=1e-5)


def test_each_class_scores_what_its_own_query_gathered() -> None:
    head, x = heads.ClassQueries(6, 3), drawn(2, 5, 6)
    with torch.no_grad():
        head.weight.copy_(drawn(3, 6, seed=1))
        head.bias.copy_(drawn(3, seed=2))
    for label in range(3):
        gathered = ((x @ head.queries[label] / 6**0.5).softmax(1)[..., None] * x).sum(1)
        assert torch.allclose(head(x)[:, label], gathered @ head.weight[label] + head.bias[label], atol=1e-5)


@pytest.mark.parametrize("kind", [heads.Attentive, heads.Efficient, heads.ClassQueries])
def test_padding_has_no_say(kind: Any) -> None:
    torch.manual_seed(0)
    head, x = kind(16, 3).eval(), drawn(2, 5, 16)
    valid = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    other = x.clone()
    other[0, 3:] = 1e3
    assert torch.equal(head(x, valid), head(other, valid))
    assert torch.allclose(head(x, valid)[:1], head(x[:1, :3]), atol=1e-5)


def test_a_mixture_weights_layers_by_a_softmax() -> None:
    head = heads.Mixture(3, 4, 2).eval()
    with torch.no_grad():
        head.weights.copy_(torch.tensor([0.0, 1.0, -1.0]))
    x = drawn(5, 3, 4)
    weights = head.weights.softmax(0)
    mixed = sum(weights[k] * x[:, k] for k in range(3))
    assert torch.allclose(head(x.flatten(1)[:, None]), head.out(head.norm(mixed)), atol=1e-6)


def test_lars_scales_the_step_of_a_matrix_to_its_size_and_leaves_biases_plain() -> None:
    weight, bias = torch.nn.Parameter(torch.full((2, 2), 2.0)), torch.nn.Parameter(torch.ones(2))
    optimizer = heads.Lars([weight, bias], lr=0.5)
    for step in (1, 2):
        weight.grad, bias.grad = torch.full((2, 2), 0.1), torch.full((2,), 0.2)
        before = weight.detach().clone()
        optimizer.step()
        if step == 1:  # trust * |w| / |g| = 0.001 * 4 / 0.2
            assert torch.allclose(weight, before - 0.5 * 0.02 * 0.1)
            assert torch.allclose(bias, torch.full((2,), 1 - 0.5 * 0.2))
    assert torch.allclose(bias, torch.full((2,), 0.9 - 0.5 * (0.9 * 0.2 + 0.2)))


@pytest.mark.parametrize(("dim", "count"), [(96, 1), (192, 3), (768, 12), (16, 1), (200, 2)])
def test_heads_are_64_wide_or_more(dim: int, count: int) -> None:
    assert heads.head_count(dim) == count
