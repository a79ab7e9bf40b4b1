from __future__ import annotations

import pytest
import torch

from maskedmodel.engine.positions import sincos
from maskedmodel.tokens import Selection
from tests.engine.conftest import Box, model_of

timm = pytest.importorskip("timm")


def test_encoder_with_nothing_hidden_equals_vit_base_mae() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("vit_base_patch16_224.mae", pretrained=False).eval()
    coords = torch.cartesian_prod(torch.arange(14), torch.arange(14))
    theirs.pos_embed.data = torch.cat([torch.zeros(1, 768), sincos(coords, 768)])[None]
    ours = model_of(
        Box(size=(224, 224), patch=(16, 16)), encoder={"preset": "b", "dim": 768, "depth": 12, "heads": 12}
    ).encoder
    state = theirs.state_dict()
    renamed = {"class_token": state["cls_token"], "norm.weight": state["norm.weight"], "norm.bias": state["norm.bias"]}
    renamed["embed.weight"] = state["patch_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1)
    renamed["embed.bias"] = state["patch_embed.proj.bias"]
    for key, tensor in state.items():
        if key.startswith("blocks."):
            renamed[key.replace("attn.", "")] = tensor
    ours.load_state_dict(renamed)
    image = torch.randn(1, 3, 224, 224)
    tokens = Box(size=(224, 224), patch=(16, 16)).tokenize(image)
    with torch.inference_mode():
        everything = torch.arange(196)[None]
        latent = ours(tokens.values, tokens.layout, Selection(everything))
        torch.testing.assert_close(latent, theirs.forward_features(image), rtol=1e-5, atol=1e-5)
