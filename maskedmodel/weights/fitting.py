"""How the weights of one model become those of another, part by part, and where that can't be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.config.sections import StartSettings
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.positions import resampled
from maskedmodel.engine.signals import SignalModel
from maskedmodel.errors import CheckpointError
from maskedmodel.tokenizers.grid import GridTokenizer
from maskedmodel.weights import convert
from maskedmodel.weights.audiomae import is_scrambled
from maskedmodel.weights.convert import TokenLayout

_COMPUTED = ("sincos", "interleaved", "mlp", "rotary")  # the weights of an mlp know no grid
_COLOURS = ("red", "green", "blue")
_SHOWN = 6


@dataclass
class Plan:
    """What is to become of every tensor. Nothing is copied before all of it is known to fit."""

    theirs: MaskedAutoencoder | FineTuned
    model: MaskedAutoencoder | FineTuned
    settings: StartSettings
    tensors: dict[str, Tensor] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    fixes: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # names of either model that are dealt with
    decoder_at_fault: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.old, self.new = self.theirs.state_dict(), self.model.state_dict()

    @property
    def same_kind(self) -> bool:
        """Whether both models cut signals along the same axes."""
        return self.theirs.tokenizer.axes == self.model.tokenizer.axes

    def problem(self, text: str, fix: str | None = None, side: str = "encoder") -> None:
        """Something that can't be, and the setting that would settle it."""
        self.problems.append(text)
        self.decoder_at_fault.append(side == "decoder")
        if fix is not None:
            self.fixes.append(fix)

    def take(self, name: str, tensor: Tensor, how: str | None = None) -> None:
        """A tensor for one of ours; `how` says what was done to it."""
        self.done.add(name)
        self.tensors[name] = tensor
        if how is not None:
            self.converted[name] = how

    def refuse(self, where: Path) -> None:
        """Raise CheckpointError where anything can't be."""
        if not self.problems:
            return
        more = len(self.problems) - 2 * _SHOWN
        listed = [*self.problems[: 2 * _SHOWN], *([f"and {more} more"] if more > 0 else [])]
        fix = f"Set {' '.join(self.fixes)}." if self.fixes else "Start from other weights, or leave start out."
        if all(self.decoder_at_fault):
            fix += " Or take the encoder alone, and train a fresh decoder: start.parts=encoder."
        raise CheckpointError(
            "These weights can't be the start of this run, so none of them is used.",
            where=where,
            got="\n    ".join(listed),
            fix=fix,
        )


def fit_prefix(plan: Plan) -> None:
    """Class and register tokens: as many as both have, the others fresh or left out."""
    for name in ("encoder.class_token", "encoder.registers"):
        old, new = plan.old.get(name), plan.new.get(name)
        plan.done.add(name)
        if old is None and new is not None:
            plan.fresh.append(name)
        elif new is None and old is not None:
            plan.left_out.append(name)
        elif old is not None and new is not None:
            if old.shape[2] != new.shape[2]:
                plan.done.discard(name)  # another width, which is told of all tensors alike
                continue
            both = min(old.shape[1], new.shape[1])
            how = None
            if old.shape != new.shape:
                how = f"the first {both} of {old.shape[1]}; {new.shape[1] - both} of {new.shape[1]} are fresh"
            plan.take(name, torch.cat([old[:, :both], new[:, both:]], 1), how)


def _layout(model: SignalModel) -> TokenLayout | None:
    """How the values of a token lie, or None where a tokenizer doesn't say."""
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, GridTokenizer):
        return None
    layout = TokenLayout(
        tokenizer.patch, 1 if tokenizer.separate_channels else tokenizer.channels, tokenizer.channels_last
    )
    return layout if layout.width == tokenizer.token_width else None


def fit_patches(plan: Plan, side: str) -> None:
    """The projection of patches, or the head that predicts them, for other patches and channels."""
    stem = "encoder.embed" if side == "encoder" else "decoder.head"
    modules = [m.get_submodule(stem) for m in (plan.theirs, plan.model)]
    old, new = _layout(plan.theirs), _layout(plan.model)
    if old is None or new is None or (old == new and not isinstance(plan.settings.channels, tuple)):
        return
    if not all(isinstance(module, nn.Linear) for module in modules):
        return
    if side == "decoder" and not _predicts_values(plan, old, new):
        return
    sources, trouble = _channels(plan, old, new)
    if trouble is not None:
        if side == "encoder":  # once is enough
            plan.problem(trouble, "start.channels=repeat, or a list of theirs, such as start.channels=[0, null]")
        plan.done |= {f"{stem}.weight", f"{stem}.bias"}
        return
    how = ", ".join(_steps(old, new, sources, side))
    weight, bias = plan.old[f"{stem}.weight"], plan.old[f"{stem}.bias"]
    if side == "encoder":
        plan.take(f"{stem}.weight", _embed(weight, old, new, sources), how)
        return
    for name, tensor in (("weight", weight.T), ("bias", bias)):
        rows = convert.resampled_head(old.unfold(tensor), old.patch, new.patch)
        if sources is not None or old.channels != new.channels:
            rows = convert.head_channels(rows, new.channels, sources)
        folded = new.fold(rows)
        plan.take(f"{stem}.{name}", folded.T if name == "weight" else folded, how)


def _embed(weight: Tensor, old: TokenLayout, new: TokenLayout, sources: list[int | None] | None) -> Tensor:
    kernel = convert.resampled_embed(old.unfold(weight), old.patch, new.patch)
    if sources is not None:
        kernel = convert.chosen_channels(kernel, sources)
    elif old.channels != new.channels:
        kernel = convert.repeated_channels(kernel, new.channels)
    return new.fold(kernel)


def _steps(old: TokenLayout, new: TokenLayout, sources: list[int | None] | None, side: str) -> list[str]:
    steps = []
    if old.patch != new.patch:
        sizes = [" x ".join(map(str, layout.patch)) for layout in (old, new)]
        way = "FlexiViT's pseudo-inverse" if side == "encoder" else "bicubic"
        steps.append(f"patches of {sizes[0]} to {sizes[1]} ({way})")
    if sources is not None:
        steps.append(f"channels from {['none' if source is None else source for source in sources]}")
    elif old.channels != new.channels:
        way = "repeated and rescaled" if side == "encoder" else "their mean"
        steps.append(f"{old.channels} channels to {new.channels} ({way})")
    if old.channels_last != new.channels_last:
        steps.append("values in another order")
    return steps


def _predicts_values(plan: Plan, old: TokenLayout, new: TokenLayout) -> bool:
    """Whether both heads predict the values of a token, by the same objective."""
    assert isinstance(plan.model, MaskedAutoencoder)
    assert isinstance(plan.theirs, MaskedAutoencoder)
    widths = [model.decoder.head.out_features for model in (plan.theirs, plan.model)]
    objectives = [model.objective.component_name() for model in (plan.theirs, plan.model)]
    return widths == [old.width, new.width] and objectives[0] == objectives[1]


def _channels(plan: Plan, old: TokenLayout, new: TokenLayout) -> tuple[list[int | None] | None, str | None]:
    """The number there of each channel here, or None where they are repeated; and what is unclear."""
    wanted = plan.settings.channels
    if wanted is None or wanted == "repeat":
        unclear = old.channels != new.channels and wanted is None
        said = f"tokenizer.channels: {old.channels} in a token there, {new.channels} here"
        return None, said if unclear else None
    if len(wanted) != new.channels:
        return None, f"start.channels: {len(wanted)} entries for {new.channels} channels in a token"
    names = tuple(getattr(plan.theirs.tokenizer.settings, "names", ())) or (_COLOURS if old.channels == 3 else ())
    sources: list[int | None] = []
    for entry in wanted:
        source = names.index(entry) if isinstance(entry, str) and entry in names else entry
        if isinstance(source, str) or (source is not None and not 0 <= source < old.channels):
            known = ", ".join(names) or "no names"
            return None, f"start.channels: there is no channel {entry!r} among {old.channels} ({known})"
        sources.append(source)
    return sources, None


def fit_positions(plan: Plan, side: str) -> None:
    """Learned positions for another grid; computed ones are computed anew."""
    stem, old, new = f"{side}.places.tables", *(getattr(m, side) for m in (plan.theirs, plan.model))
    kinds = old.settings.positions, new.settings.positions
    ours = [name for name in plan.new if name.startswith(f"{stem}.")]
    plan.done |= {*ours, *(name for name in plan.old if name.startswith(f"{stem}."))}
    grids: list[Any] = [m.tokenizer.extents for m in (plan.theirs, plan.model)]
    if old.settings.dim != new.settings.dim or not plan.same_kind:
        return  # told already
    if kinds[1] == "table" and kinds[0] in ("sincos", "interleaved"):
        coords = torch.cartesian_prod(*(torch.arange(n) for n in grids[1])).reshape(-1, len(grids[1]))
        with torch.no_grad():
            table = old.places.positions(coords, grids[1])
            plan.take(f"{stem}.table", table, f"{kinds[0]} positions as a learned table")
    elif kinds[0] != kinds[1]:
        fix = f"model.{side}.positions={kinds[0]}"
        plan.problem(f"model.{side}.positions: {kinds[0]} there, {kinds[1]} here", fix, side)
    elif kinds[0] in _COMPUTED:
        if kinds[0] == "interleaved" and grids[0] != grids[1]:
            plan.notes.append(f"interleaved positions of the {side} follow the raster order, which is another one here")
    elif kinds[0] == "table":
        _fit_table(plan, side, f"{stem}.table", *grids)
    else:
        for name, extent in zip(ours, grids[1], strict=True):
            table = plan.old[name]
            how = None if len(table) == extent else f"interpolated from {len(table)} to {extent} cells"
            plan.take(name, convert.resampled_axis(table, extent), how)


def _fit_table(plan: Plan, side: str, name: str, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    table, how = plan.old[name], None
    if old != new:
        sizes = [" x ".join(map(str, grid)) for grid in (old, new)]
        if is_scrambled(table, old):
            plan.problem(
                f"{name}: its positions don't follow the grid of {sizes[0]}, as AudioMAE's: they can't be interpolated "
                f"to {sizes[1]}",
                side=side,
            )
            return
        table, how = resampled(table, old, new), f"interpolated from {sizes[0]} to {sizes[1]} cells"
    plan.take(name, table, how)


def fit_channels_of_tokens(plan: Plan, side: str) -> None:
    """The embedding of a token's channel: row by row, for channels of the same number; what describes one as it is."""
    stem = f"{side}.places.description."
    old_names, new_names = ({name for name in state if name.startswith(stem)} for state in (plan.old, plan.new))
    if not old_names or not new_names:
        plan.fresh += sorted(new_names)
        plan.left_out += sorted(old_names)
        plan.done |= old_names | new_names
    name = f"{side}.places.channels.weight"
    old, new = plan.old.get(name), plan.new.get(name)
    if old is None and new is None:
        return
    plan.done.add(name)
    if old is None:
        plan.fresh.append(name)
    elif new is None:
        plan.left_out.append(name)
    elif old.shape[1] == new.shape[1]:
        both = min(len(old), len(new))
        how = None if len(old) == len(new) else f"channels 0 to {both - 1} of {len(old)}; {len(new) - both} are fresh"
        plan.take(name, torch.cat([old[:both], new[both:]]), how)
    else:
        plan.done.discard(name)


def fit_rest(plan: Plan, side: str) -> None:
    """What is the same in both, or doesn't fit."""
    old, new = ({n: t for n, t in state.items() if n.startswith(f"{side}.")} for state in (plan.old, plan.new))
    wrong = []
    for name in sorted((old.keys() | new.keys()) - plan.done):
        if name not in old:
            wrong.append(f"{name}: isn't there")
        elif name not in new:
            wrong.append(f"{name}: has no place here")
        elif old[name].shape != new[name].shape:
            wrong.append(f"{name}: {tuple(old[name].shape)} where {tuple(new[name].shape)} is due")
        elif not bool(old[name].isfinite().all()):
            wrong.append(f"{name}: some values aren't finite")
        else:
            plan.take(name, old[name])
    for text in wrong[:_SHOWN]:
        plan.problem(text, side=side)
    if len(wrong) > _SHOWN:
        plan.problem(f"and {len(wrong) - _SHOWN} more tensors of the {side}", side=side)
