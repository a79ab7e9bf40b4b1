"""Same weights, same image, same mask as transformers' ViTMAE: same loss, predictions and gradients.

The mapping of names is written out here once more, apart from maskedmodel.weights, so that each checks the other.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.engine.positions import sincos
from tests.engine.conftest import Box, model_of

transformers = pytest.importorskip("transformers")

EPSILON = 1e-6


def theirs_of(size: tuple[int, int], patch: int, normalise: bool) -> Any:
    config = transformers.ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, image_size=size if size[0] != size[1] else size[0], patch_size=patch,
        num_channels=3, mask_ratio=0.75, norm_pix_loss=normalise, layer_norm_eps=EPSILON,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTMAEForPreTraining(config)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.2
    return model.double()


def mapped(name: str, tensors: dict[str, Tensor]) -> Tensor:
    """The tensor of ours called `name` out of theirs (names as transformers 5 has them in memory)."""
    side, _, rest = name.partition(".")
    vit = side == "encoder"
    table = {
        "embed.weight": "vit.embeddings.patch_embeddings.projection.weight" if vit else "decoder.decoder_embed.weight",
        "embed.bias": "vit.embeddings.patch_embeddings.projection.bias" if vit else "decoder.decoder_embed.bias",
        "class_token": "vit.embeddings.cls_token",
        "mask_token": "decoder.mask_token",
        "norm.weight": "vit.layernorm.weight" if vit else "decoder.decoder_norm.weight",
        "norm.bias": "vit.layernorm.bias" if vit else "decoder.decoder_norm.bias",
        "head.weight": "decoder.decoder_pred.weight",
        "head.bias": "decoder.decoder_pred.bias",
    }
    if rest in table:
        found = tensors[table[rest]]
        return found.permute(0, 2, 3, 1).flatten(1) if found.dim() == 4 else found
    _, index, part = rest.split(".", 2)
    block = f"vit.layers.{index}" if vit else f"decoder.decoder_layers.{index}"
    module, _, kind = part.rpartition(".")
    if module == "qkv":
        return torch.cat([tensors[f"{block}.attention.{x}_proj.{kind}"] for x in "qkv"])
    names = {"proj": "attention.o_proj", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    return tensors[f"{block}.{names.get(module, module)}.{kind}"]


def give_positions(theirs: Any, ours: MaskedAutoencoder, grid: tuple[int, int]) -> None:
    """Built from a config their tables are all zero, a bug there, so both are written over."""
    coords = torch.cartesian_prod(*(torch.arange(extent) for extent in grid))
    tables = {"vit.embeddings.position_embeddings": 24, "decoder.decoder_pos_embed": 16}
    for name, parameter in theirs.named_parameters():
        if name in tables:
            table = sincos(coords, tables[name]).double()
            parameter.data = torch.cat([torch.zeros(1, table.shape[1], dtype=torch.float64), table])[None]
    # Theirs takes other than square images only with interpolation, which starts from a square grid: give it the table.
    embeddings, decoder = theirs.vit.embeddings, theirs.decoder
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embeddings
    decoder.interpolate_pos_encoding = lambda *_: decoder.decoder_pos_embed


@pytest.mark.parametrize("normalise", [False, True])
# Theirs can be built for another than a square grid as long as it has a square number of patches.
@pytest.mark.parametrize("size", [(12, 12), (8, 32)])
def test_loss_predictions_and_gradients(size: tuple[int, int], normalise: bool) -> None:
    grid = (size[0] // 4, size[1] // 4)
    theirs = theirs_of(size, 4, normalise)
    ours = model_of(Box(size=size, patch=(4, 4)), normalise=normalise).double()
    give_positions(theirs, ours, grid)
    parameters = dict(theirs.named_parameters())
    ours.load_state_dict({name: mapped(name, parameters).detach() for name in ours.state_dict()})

    torch.manual_seed(1)
    image = torch.randn(3, 3, *size, dtype=torch.float64)
    drawn = torch.rand(3, grid[0] * grid[1])
    result = theirs(image, noise=drawn, interpolate_pos_encoding=True)
    mask = Mask(result.mask.bool())
    output = ours(image, mask)

    torch.testing.assert_close(output.loss, result.loss.float(), rtol=1e-5, atol=1e-6, check_dtype=False)
    picked = result.logits.gather(1, mask.ids_hidden[..., None].expand_as(output.prediction))
    torch.testing.assert_close(output.prediction, picked, rtol=1e-7, atol=1e-7)
    everywhere = ours.predict_everywhere(ours.tokens(image), mask)
    torch.testing.assert_close(everywhere, result.logits, rtol=1e-7, atol=1e-7)

    output.loss.backward()
    result.loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, mapped(name, gradients), rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (8, 32)])
def test_in_single_precision(size: tuple[int, int], normalise: bool) -> None:
    theirs = theirs_of(size, 4, normalise)
    ours = model_of(Box(size=size, patch=(4, 4)), normalise=normalise)
    give_positions(theirs, ours, (size[0] // 4, size[1] // 4))
    theirs.float()
    parameters = dict(theirs.named_parameters())
    ours.load_state_dict({name: mapped(name, parameters).detach() for name in ours.state_dict()})
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    drawn = torch.rand(2, 16, generator=torch.Generator().manual_seed(3))
    result = theirs(image, noise=drawn, interpolate_pos_encoding=True)
    mask = Mask(result.mask.bool())
    output = ours(image, mask)
    torch.testing.assert_close(output.loss, result.loss, rtol=1e-5, atol=1e-5)
    picked = result.logits.gather(1, mask.ids_hidden[..., None].expand_as(output.prediction))
    torch.testing.assert_close(output.prediction, picked, rtol=1e-5, atol=1e-5)
    output.loss.backward()
    result.loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, mapped(name, gradients), rtol=1e-5, atol=1e-5, msg=name)


def test_the_mapping_names_every_parameter() -> None:
    theirs = theirs_of((8, 8), 4, False)
    used: set[str] = set()

    class Watching(dict[str, Tensor]):
        def __getitem__(self, key: str) -> Tensor:
            used.add(key)
            return super().__getitem__(key)

    ours = model_of(Box(size=(8, 8), patch=(4, 4)))
    tensors = Watching(theirs.named_parameters())
    assert all(mapped(name, tensors).shape == tensor.shape for name, tensor in ours.state_dict().items())
    rest = {name for name, p in theirs.named_parameters() if isinstance(p, nn.Parameter)} - used
    assert rest == {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
