"""The config that comes with the package: it builds, its data and tokens go together, and the counts are as said."""

from __future__ import annotations

import torch

from maskedmodel import MaskedAutoencoder, Noise
from maskedmodel.config.load import load_config
from maskedmodel.evaluation.reconstruct import complete, masked_picture, preview, reconstruction
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry


def test_the_quickstart_trains_on_its_data_and_draws_three_clouds() -> None:
    registry = load_registry()
    config = load_config("points-quickstart", registry=registry)
    tokenizer = registry.build("tokenizer", config.tokenizer)
    scheduler, objective = registry.build("mask_scheduler", config.mask), registry.build("objective", config.objective)
    with seeded(0):
        model = MaskedAutoencoder(tokenizer, scheduler, objective, config.model)
    data = registry.build("data_source", config.data).open("train")
    samples = [data[index] for index in range(3)]
    ids = [sample["id"] for sample in samples]
    stored = tokenizer.collate([sample["signal"] for sample in samples])
    output = model(tokenizer.augment(stored, Noise.of(ids)), noise=Noise.of(ids))
    hidden = round(config.mask.ratio * tokenizer.settings.groups)
    assert output.mask.ids_hidden.shape == (3, hidden)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())

    signal = tokenizer.prepare(stored)
    done = complete(model, signal, ids)
    original, pasted = (
        tokenizer.picture(done.signals[name], done.signals["original"]) for name in ("original", "pasted")
    )
    visible = masked_picture(tokenizer, done.tokens, done.mask)
    inked = (original != 1).any(1)
    seen = (visible != 1).any(1)
    assert (seen.sum((1, 2)) < 0.75 * inked.sum((1, 2))).all(), "hidden points aren't drawn"
    assert not (seen & ~inked).any()
    assert ((pasted != 1).any(1) | ~seen).all(), "visible points stand in the completed cloud"
    assert torch.isfinite(done.signals["reconstruction"]).all()
    assert reconstruction(model, signal, ids).width > 300
    assert preview(tokenizer, scheduler, signal, ids, progress=(0.0,)).width > 200
