"""Masked autoencoders of several libraries on the same work, each as a function that does one training step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from flops import Work
from torch import Tensor, nn

Loss = Callable[[Tensor], Tensor]

BETAS, LR, DECAY = (0.9, 0.95), 1e-4, 0.05


def maskedmodel(work: Work, compiled: bool) -> tuple[nn.Module, Loss]:
    """This project's engine."""
    model = _own(work, compiled)
    return model, lambda images: model(images).loss


def with_mkl(work: Work, compiled: bool) -> tuple[nn.Module, Loss]:
    """This project's engine with the matrix products that torch picks, as the peers have them."""
    from maskedmodel.engine import kernels

    kernels.chosen_products.update(kernels.everywhere(False))
    return maskedmodel(work, compiled)


def nothing_hidden(work: Work, compiled: bool) -> tuple[nn.Module, Loss]:
    """This project's engine with every token visible, decoded and scored."""
    from maskedmodel.tokens import Mask

    model = _own(work, compiled)

    def loss(images: Tensor) -> Tensor:
        tokens = model.tokens(images)
        return nn.functional.mse_loss(model.predict_everywhere(tokens, Mask.nothing(tokens)), tokens.values)

    return model, loss


def _own(work: Work, compiled: bool) -> Any:
    from maskedmodel_image.tokenizer import ImageTokenizer
    from maskedmodel_masks.uniform import Uniform
    from maskedmodel_objectives.patch import Patch

    from maskedmodel.engine.model import MaskedAutoencoder
    from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings

    model = MaskedAutoencoder(
        ImageTokenizer(size=work.size, patch=work.patch),
        Uniform(ratio=work.ratio),
        Patch(normalise=False),
        ModelSettings(
            encoder=EncoderSettings(dim=work.dim, depth=work.depth, heads=work.heads),
            decoder=DecoderSettings(dim=work.decoder_dim, depth=work.decoder_depth, heads=work.decoder_heads),
        ),
    )
    if compiled:
        model.compile_engine()
    return model


def transformers(work: Work, compiled: bool) -> tuple[nn.Module, Loss]:
    """ViTMAEForPreTraining, with the attention it picks itself."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=work.size,
            patch_size=work.patch,
            hidden_size=work.dim,
            num_hidden_layers=work.depth,
            num_attention_heads=work.heads,
            intermediate_size=4 * work.dim,
            decoder_hidden_size=work.decoder_dim,
            decoder_num_hidden_layers=work.decoder_depth,
            decoder_num_attention_heads=work.decoder_heads,
            decoder_intermediate_size=4 * work.decoder_dim,
            mask_ratio=work.ratio,
            layer_norm_eps=1e-6,
        )
    )
    if compiled:
        model.compile()
    return model, lambda images: model(images).loss


def lightly(work: Work, compiled: bool) -> tuple[nn.Module, Loss]:
    """lightly's MAE, put together from its modules as its documentation does."""
    model = _LightlyMAE(work)
    if compiled:
        model.compile()
    return model, model


class _LightlyMAE(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        from lightly.models import utils
        from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
        from timm.models.vision_transformer import VisionTransformer

        self.utils, self.patch, self.ratio = utils, work.patch, work.ratio
        vit = VisionTransformer(
            img_size=work.size,
            patch_size=work.patch,
            embed_dim=work.dim,
            depth=work.depth,
            num_heads=work.heads,
            num_classes=0,
        )
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.embed = nn.Linear(work.dim, work.decoder_dim)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=work.tokens,
            embed_dim=work.decoder_dim,
            depth=work.decoder_depth,
            num_heads=work.decoder_heads,
        )
        self.head = nn.Linear(work.decoder_dim, work.token_width)

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[0], self.backbone.sequence_length
        keep, mask = self.utils.random_token_mask(size=size, mask_ratio=self.ratio, device=images.device)
        seen = self.embed(self.backbone.encode(images=images, idx_keep=keep))
        x = self.utils.repeat_token(self.decoder.mask_token, size)
        x = self.utils.set_at_index(x, keep, seen.type_as(x))
        prediction = self.head(self.utils.get_at_index(self.decoder(x), mask))
        target = self.utils.get_at_index(self.utils.patchify(images, self.patch), mask - 1)
        return nn.functional.mse_loss(prediction, target)


BUILDERS: dict[str, Callable[[Work, bool], tuple[nn.Module, Loss]]] = {
    "maskedmodel": maskedmodel,
    "maskedmodel, MKL": with_mkl,
    "nothing hidden": nothing_hidden,
    "transformers": transformers,
    "lightly": lightly,
}
INSTALL = {"lightly": "uv sync --group peers", "transformers": "uv sync"}


class Stepper:
    """One implementation, its optimizer and its images."""

    def __init__(self, name: str, work: Work, compiled: bool) -> None:
        torch.manual_seed(0)
        self.model, self.loss = BUILDERS[name](work, compiled)
        self.model.train()
        self.images = torch.rand(work.batch, 3, work.size, work.size)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in trained)
        self.optimizer = torch.optim.AdamW(trained, lr=LR, betas=BETAS, weight_decay=DECAY)

    def step(self, fused: bool) -> float:
        """Forward, backward and AdamW; seconds. `fused` picks AdamW's kernel, False is what torch picks by itself."""
        for group in self.optimizer.param_groups:
            group["fused"] = fused or None
        start = time.perf_counter()
        self.loss(self.images).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def peak_mib() -> float:
    """The most memory this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage gives on Linux includes the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def serve(connection: Connection, name: str, work: Work, compiled: bool, threads: int) -> None:
    """The main function of an implementation's process: one step for every message, until None comes."""
    torch.set_num_threads(threads)
    try:
        stepper = Stepper(name, work, compiled)
    except ImportError as error:
        connection.send({"error": f"{name} can't be imported ({error}). Install it: {INSTALL.get(name, 'uv sync')}"})
        return
    connection.send({"parameters": stepper.parameters})
    while (fused := connection.recv()) is not None:
        connection.send((stepper.step(fused), peak_mib()))
