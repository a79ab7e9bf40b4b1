"""Vision models of transformers and timm, judged on the same prepared pictures as an encoder of ours.

Both libraries are optional, nothing is downloaded, no code in a folder runs, and weights are read as safetensors alone.
Shapes: B batch, C channels, L tokens, D width.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel.components import Tokenizer
from maskedmodel.errors import CheckpointError, DataError, DependencyError, install_hint
from maskedmodel.evaluation.encoders import Encoder, Look
from maskedmodel.noise import seeded

Pool = Literal["mean", "class"]
RANDOM = "random weights"
_HALF = (0.5, 0.5, 0.5)


def kind_of(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """transformers or timm, and the content of config.json; None where a folder is neither's."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("This config.json can't be read.", where=path, got=type(error).__name__) from error
    if not isinstance(config, dict):
        return None
    kinds = {"model_type": "transformers", "architecture": "timm"}
    return next(((kind, config) for key, kind in kinds.items() if isinstance(config.get(key), str)), None)


def open_encoders(
    folder: Path,
    tokenizer: Tokenizer[Any],
    pool: Pool,
    seed: int,
    device: torch.device,
    *,
    name: str = "",
    twin: bool = True,
) -> list[Encoder]:
    """The model in a folder, and, unless `twin` is off, the same architecture with random weights.

    `name` is what it is called, by default as its folder.

    Raises CheckpointError where the folder holds no such model, DependencyError without its library, DataError where
    the tokenizer's signals aren't pictures.
    """
    found = kind_of(folder)
    if found is None:
        raise CheckpointError(
            "This folder holds no model of transformers or timm.",
            where=folder,
            expected='a config.json with "model_type" (transformers) or "architecture" (timm), beside the weights',
            got="no such folder" if not folder.is_dir() else ", ".join(sorted(p.name for p in folder.iterdir())[:6]),
        )
    require_pictures(tokenizer, folder)
    kind, config = found
    name = name or folder.resolve().name
    models = _transformers(folder, seed, twin) if kind == "transformers" else _timm(folder, seed, twin)
    size, mean, std, told = _input_of(folder, models[0]) if kind == "transformers" else _timm_input(models[0])
    look = _look_transformers if kind == "transformers" else _look_timm
    pooled = "mean over its patch tokens" if pool == "mean" else "its class token"
    called = config.get("model_type") or config.get("architecture")
    about = f"{kind} {called}; {described(size, mean, std)}{told}; {pooled}."
    encoders = []
    for label, model, said in zip((name, f"{name}, {RANDOM}"), models, (about, ""), strict=False):
        model.to(device)
        prepare = _Prepare(size, mean, std)
        encoders.append(_encoder(label, model, prepare, look, pool, said))
    return encoders


def require_pictures(tokenizer: Tokenizer[Any], where: object) -> None:
    """Raise DataError where prepared signals aren't pictures (B, C, H, W) in [0, 1], of one or three channels."""
    example = tokenizer.prepare(tokenizer.example(1, torch.Generator().manual_seed(0)))
    if example.dim() != 4 or example.shape[1] not in (1, 3) or tokenizer.value_range != (0.0, 1.0):
        raise DataError(
            "A vision model takes pictures, which these data aren't.",
            where=where,
            expected="(B, 1 or 3, H, W) in [0, 1]",
            got=f"{tuple(example.shape)} of tokenizer {tokenizer.component_name()!r}",
        )


def fitted(signal: Tensor, size: tuple[int, int], channels: int = 3) -> Tensor:
    """Pictures (B, 1 or 3, H, W) in [0, 1] as (B, channels, *size): grey repeated, colours averaged for one."""
    if signal.shape[1] != channels:
        signal = signal.mean(1, keepdim=True) if channels == 1 else signal.expand(-1, channels, -1, -1)
    if tuple(signal.shape[2:]) != size:
        signal = F.interpolate(signal, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return signal


def described(size: tuple[int, int], mean: Sequence[float] = (), std: Sequence[float] = ()) -> str:
    """What a model is given, in words."""
    numbers = f", normalised by mean {_short(mean)} and spread {_short(std)}" if mean else ""
    return f"pictures as this page's data give them, resized to {size[0]}x{size[1]} pixels{numbers}"


def _short(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in values)


class _Prepare:
    def __init__(self, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.size, self.mean, self.std = size, torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, signal: Tensor) -> Tensor:
        picture = fitted(signal, self.size)
        return (picture - self.mean.to(picture.device)) / self.std.to(picture.device)


def _encoder(
    name: str, model: nn.Module, prepare: _Prepare, look: Callable[[Any, Tensor, bool], Look], pool: Pool, about: str
) -> Encoder:
    def see(signal: Tensor, layers: bool) -> Look:
        return look(model, prepare(signal), layers)

    def embed(signal: Tensor) -> Tensor:
        found = see(signal, False)
        if pool == "class":
            if found.class_token is None:
                raise CheckpointError("This model has no class token.", where=name, fix="Set evaluate.pool=mean.")
            return found.class_token
        assert found.tokens is not None
        return found.tokens.mean(1)

    return Encoder(name, embed, see, (model,), about)


def _transformers(folder: Path, seed: int, twin: bool) -> list[Any]:
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise DependencyError("Reading this model needs transformers.", fix=install_hint("transformers")) from error
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unreadable(folder, "transformers", error) from error
    if not twin:
        return [model]
    with seeded(seed):
        fresh = AutoModel.from_config(model.config)  # type: ignore[no-untyped-call]
        for name, parameter in fresh.named_parameters():  # some releases leave these at zero, so tokens had no place
            if name.rsplit(".", 1)[-1] in ("position_embeddings", "cls_token") and not parameter.detach().any():
                nn.init.trunc_normal_(parameter, std=0.02)
    return [model, fresh]


def _timm(folder: Path, seed: int, twin: bool) -> list[Any]:
    try:
        import timm
    except ImportError as error:
        raise DependencyError("Reading this model needs timm.", fix=install_hint("timm")) from error
    if not list(folder.glob("*.safetensors")):
        raise _unreadable(folder, "timm", FileNotFoundError("no file of safetensors"))
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise _unreadable(folder, "timm", error) from error
    if not twin:
        return [model]
    with seeded(seed):
        return [model, timm.create_model(f"local-dir:{folder}", pretrained=False, num_classes=0)]


def _unreadable(folder: Path, library: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{library} can't load the model in this folder.",
        where=folder,
        expected="config.json and weights as safetensors",
        got=" ".join(str(error).split())[:300] or type(error).__name__,
    )


def _input_of(folder: Path, model: Any) -> tuple[tuple[int, int], Sequence[float], Sequence[float], str]:
    """Size, mean and spread that a model of transformers expects, and what was guessed."""
    path = folder / "preprocessor_config.json"
    given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    size = getattr(model.config, "image_size", None) or _side(given.get("crop_size") or given.get("size")) or 224
    mean, std = given.get("image_mean") or _HALF, given.get("image_std") or _HALF
    told = "" if path.is_file() else " (a guess: there is no preprocessor_config.json)"
    if given.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    pair = (int(size), int(size)) if isinstance(size, int | float) else (int(size[0]), int(size[1]))
    return pair, [float(v) for v in mean], [float(v) for v in std], told


def _side(size: Any) -> Any:
    if isinstance(size, dict):
        return size.get("height") or size.get("shortest_edge")
    return size


def _timm_input(model: Any) -> tuple[tuple[int, int], Sequence[float], Sequence[float], str]:
    given = getattr(model, "pretrained_cfg", {})
    _, height, width = given.get("input_size", (3, 224, 224))
    return (height, width), given.get("mean", _HALF), given.get("std", _HALF), ""


def _look_transformers(model: Any, picture: Tensor, layers: bool) -> Look:
    out = model(pixel_values=picture, output_hidden_states=layers)
    last = out.last_hidden_state
    if last.dim() == 4:
        return Look(last.flatten(2).transpose(1, 2))
    prefix = _prefix(model, picture, last.shape[1])
    means = None
    if layers and out.hidden_states:
        inner = [hidden[:, prefix:].mean(1) for hidden in out.hidden_states[1:-1]]
        means = torch.stack([*inner, last[:, prefix:].mean(1)], 1)
    return Look(last[:, prefix:], None, last[:, 0] if prefix else None, means)


def _prefix(model: Any, picture: Tensor, count: int) -> int:
    """Class and register tokens before the patches."""
    patch = getattr(model.config, "patch_size", None)
    if not isinstance(patch, int):
        return 0
    return max(count - (picture.shape[2] // patch) * (picture.shape[3] // patch), 0)


def _look_timm(model: Any, picture: Tensor, layers: bool) -> Look:
    last = model.forward_features(picture)
    if last.dim() == 4:
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return Look(last.flatten(1, 2) if channels_last else last.flatten(2).transpose(1, 2))
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    means = None
    if layers and hasattr(model, "forward_intermediates"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inner = model.forward_intermediates(picture, output_fmt="NLC", intermediates_only=True)
        if len({part.shape[-1] for part in inner}) == 1:
            means = torch.stack([*(part.mean(1) for part in inner[:-1]), last[:, prefix:].mean(1)], 1)
    class_token = last[:, 0] if getattr(model, "cls_token", None) is not None else None
    return Look(last[:, prefix:], None, class_token, means)
