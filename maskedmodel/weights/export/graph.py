"""The encoder as a graph, or a fine-tuned model with its head, without masking: torch.export's and ONNX's.

The batch may have any size.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.signals import SignalModel
from maskedmodel.plugins import Registry
from maskedmodel.tasks import Encoded
from maskedmodel.weights.export.head import gives
from maskedmodel.weights.export.written import Written, largest, library, refused, samples

BATCHES = (1, 3, 8)
_TRACED = 2  # samples that the graph is made with: a batch of one would be taken for a constant
_INLINE = 1_500_000_000  # bytes of weights that fit into the ONNX file itself, whose format ends at 2 GB


class Features(nn.Module):
    """A prepared batch to the features (B, S + L, D) of class and register tokens and of all tokens."""

    def __init__(self, model: SignalModel) -> None:
        super().__init__()
        self.tokenizer, self.encoder = model.tokenizer, model.encoder

    def forward(self, signal: Tensor) -> Tensor:
        features: Tensor = self.encoder.features(self.tokenizer.tokenize(signal))
        return features


class Predictions(nn.Module):
    """A prepared batch to the predictions of a fine-tuned model."""

    def __init__(self, model: FineTuned) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.task = model.tokenizer, model.encoder, model.task
        self.class_token = model.settings.encoder.class_token

    def forward(self, signal: Tensor) -> Tensor:
        tokens = self.tokenizer.tokenize(signal)
        latent = self.encoder.features(tokens, norm=not self.task.before_norm)
        ids = torch.arange(tokens.length, device=tokens.values.device).expand(tokens.batch, -1)
        encoded = Encoded(latent, self.encoder.prefix, self.class_token, tokens, ids, tokens.valid)
        prediction: Tensor = self.task(encoded)
        return prediction


def _whole(model: SignalModel) -> nn.Module:
    return Predictions(model) if isinstance(model, FineTuned) else Features(model)


def _names(model: SignalModel) -> tuple[str, str, str]:
    """What the file is called, its output, and what it is in words."""
    if isinstance(model, FineTuned):
        return "model", "predictions", f"the encoder with its head for task {model.task.component_name()!r}"
    return "encoder", "features", "the encoder without masking"


def _program(model: SignalModel, target: str) -> tuple[Any, list[str]]:
    """The exported program and what to tell of it. Raises CheckpointError where torch can't make one."""
    whole, notes = copy.deepcopy(_whole(model)).eval(), []
    if model.tokenizer.accepts_nan:
        notes.append(
            "absent values (NaN) count as zero after normalising, as in the model; but a token of which all are absent "
            "is taken for one of zeros, where the model leaves it out"
        )
    for parameter in whole.parameters():
        parameter.requires_grad_(False)
    signal, other = (samples(model, _TRACED, seed) for seed in range(2))
    if signal.shape != other.shape:
        name = model.tokenizer.component_name()
        raise refused(target, [f"what its tokenizer {name!r} makes of samples differs in length, and a graph has one"])
    try:
        with torch.no_grad(), _quiet():
            whole(signal)  # a tokenizer may look at its own state the first time
            program = torch.export.export(whole, (signal,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # whatever torch finds in a tokenizer that is no graph
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"its tokenizer {model.tokenizer.component_name()!r} makes no graph: {lines[0][:200]}"
        raise refused(target, [reason]) from error
    return program, notes


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of its own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _gives(model: SignalModel) -> str:
    if isinstance(model, FineTuned):
        return gives(model)
    return f"features (batch, {model.encoder.prefix} class and register tokens + tokens, {model.settings.encoder.dim})"


def write_torch(model: SignalModel, folder: Path, registry: Registry | None) -> Written:
    """encoder.pt2, or model.pt2 with a head. Raises CheckpointError where the tokenizer makes no graph."""
    program, notes = _program(model, "torch")
    path = folder / f"{_names(model)[0]}.pt2"
    with _quiet():
        torch.export.save(program, path)
        again = torch.export.load(path).module()
    return Written(
        what=_names(model)[2],
        gives=_gives(model),
        load=f"torch.export.load({str(path)!r}).module()",
        difference=lambda signal: largest(_whole(model)(signal), again(signal)),
        batches=BATCHES,
        notes=notes,
    )


def write_onnx(model: SignalModel, folder: Path, registry: Registry | None) -> Written:
    """encoder.onnx, or model.onnx with a head. Raises as `write_torch`; DependencyError without onnxruntime."""
    packages = "'maskedmodel[onnx]'"
    for name in ("onnx", "onnxscript"):
        library(name, target="onnx", package=packages)
    runtime = library("onnxruntime", target="onnx", package=packages)
    program, notes = _program(model, "onnx")
    path, signal = folder / f"{_names(model)[0]}.onnx", samples(model, _TRACED, 0)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in _whole(model).state_dict().values())
    with _quiet():
        torch.onnx.export(
            program,
            (signal,),
            path,
            input_names=["signal"],
            output_names=[_names(model)[1]],
            external_data=weights > _INLINE,
            verbose=False,
        )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def difference(batch: Tensor) -> float:
        (found,) = session.run(None, {"signal": batch.numpy()})
        return largest(_whole(model)(batch), torch.from_numpy(found))

    return Written(
        what=_names(model)[2],
        gives=_gives(model),
        load=f"onnxruntime.InferenceSession({str(path)!r}).run(None, {{'signal': batch}})",
        difference=difference,
        batches=BATCHES,
        notes=notes,
        libraries=("onnx", "onnxruntime"),
    )
