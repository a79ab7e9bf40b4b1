"""The `channels` tokenizer: fields of any number of channels, each channel cut into patches of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast

import torch
from einops import rearrange
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import GridTokenizer, Noise, Settings, Tokens
from maskedmodel.errors import ConfigError, DataError, ShapeError
from maskedmodel.pictures import Scale, Scales
from maskedmodel.tokenizers import pair
from maskedmodel_microscopy.described import WIDTH, described
from maskedmodel_microscopy.picture import draw, drawn_slots, footprint
from maskedmodel_microscopy.windows import TURNS, Present, fewer_channels, standardise

_FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535}


class ChannelsSettings(Settings):
    """Settings of the `channels` tokenizer. Defaults are those of CA-MAE (Kraus et al. 2024)."""

    name: Literal["channels"] = "channels"
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        256, description="Size the model sees in training, in pixels: one number, or [height, width]."
    )
    eval_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="Size for validation, features and pictures, in pixels, such as a whole field where training takes "
        "windows; goes best with rotary positions. null: the same.",
    )
    patch: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        16, description="Size of a token, in pixels: one number, or [height, width]. Divides the size."
    )
    channels: PositiveInt = Field(
        6,
        description="Number of channel slots that the model tells apart: the length of the data's list of channel "
        "names. Channels in later slots are encoded without identity.",
    )
    unknown_channels: Literal["refuse", "anonymous"] = Field(
        "refuse",
        description="What training does with data of more slots than `channels`. refuse: an error, since it is most "
        "often an oversight. anonymous: the channels beyond have no identity. Inference always takes them.",
    )
    standardise: Literal["image", "none"] = Field(
        "image",
        description="image: each channel of each image to mean 0 and variance 1, over the pixels that are there. none: "
        "values as they are stored, 8- and 16-bit white = 1.",
    )
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1e-5,
        description="Added to a channel's variance, in squared units of the stored values: a channel of much less "
        "spread than its root isn't blown up.",
    )
    crop: bool = Field(True, description="Whether training takes a random window of the size, else the central one.")
    turn: bool = Field(
        True,
        description="Whether training turns by a random quarter turn and mirrors; not square, it mirrors alone.",
    )
    channel_sampling: Literal["none", "hierarchical"] = Field(
        "none",
        description="Channels left out in training. hierarchical: a number uniform from one to all, then that many at "
        "random, per sample (ChannelViT).",
    )
    names: tuple[str, ...] = Field((), description="What pictures call the slots, in order; others as the data says.")
    identity: Literal["slot", "name"] = Field(
        "slot",
        description="How a channel is known. slot: by a learned vector for each slot. name: by the letters of its name "
        "in `names`, which must be given for all slots, so that a model takes other lists of names. Names spelt alike "
        "are near each other; what a stain binds isn't known. Slots beyond those names are then all alike.",
    )

    @model_validator(mode="after")
    def _names_fit(self) -> ChannelsSettings:
        if len(self.names) > self.channels:
            raise ValueError(f"names has {len(self.names)} entries for channels: {self.channels}")
        if self.identity == "name" and len(self.names) < self.channels:
            raise ValueError(f"identity: name wants a name for each of {self.channels} channels, got {len(self.names)}")
        return self


@dataclass(frozen=True, eq=False)
class ChannelTokens(Tokens):
    """Tokens that know the extents (V, H, W) of the signal they were cut from, absent channels included."""

    extents: tuple[int, int, int] = (0, 0, 0)


class ChannelsTokenizer(GridTokenizer[ChannelsSettings]):
    """Patches of one channel each, channel by channel: one embedding for all channels (Bao et al. 2024; CA-MAE).

    A signal is (B, V, H, W): V slots for channels, of which each sample has some. A slot that a sample lacks is all
    NaN, as is what lies beyond a smaller picture, so samples of different channels and sizes share a batch. Only tokens
    with a value are kept, moved to the front of their row: a batch is as long as its longest sample, whatever V.

    Who a channel is stands in `Tokens.channel`: its slot, or, with `identity: name`, in `Tokens.channel_features`. What
    a slot means is the data source's: a name, or the place in a file. Whether the model may know is the model's own
    setting, for either half of it: ChannelViT knows both (the default); CA-MAE sets `model.encoder.channels: false`, so
    that its features treat all channels alike, while the decoder must know which channel a hidden token is of.

    A decoder of its own per channel, as in CA-MAE, is left out: the decoder shared by all channels is told the channel
    by its embedding, costs no weights per channel, learns from every channel, and takes channels never met.
    """

    axes = ("height", "width")
    separate_channels = True
    accepts_nan = True
    described: Tensor

    def __init__(self, settings: ChannelsSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self._grid(self.eval_size)  # refuses a size that the patch doesn't divide, before anything is trained
        if self.settings.identity == "name":
            self.channel_count, self.channel_features = 0, WIDTH
            self.described_names = self.settings.names
            known = torch.cat([described(self.settings.names), torch.zeros(1, WIDTH)])
            self.register_buffer("described", known, persistent=False)

    @property
    def eval_size(self) -> tuple[int, int]:
        """Size of what `prepare` gives, in pixels."""
        return pair(self.settings.size) if self.settings.eval_size is None else pair(self.settings.eval_size)

    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = self._cut(signal)
        if self.settings.identity == "slot":
            return tokens
        assert tokens.channel is not None, "every token's channel is named"
        row = tokens.channel.clamp(max=len(self.described) - 1)
        return replace(tokens, channel_features=self.described[row].to(signal.dtype))

    def _cut(self, signal: Tensor) -> ChannelTokens:
        if signal.dim() != 4 or signal.shape[1] == 0 or not signal.is_floating_point():
            raise ShapeError(
                "Tokenizer 'channels' can't cut this signal.",
                expected="(batch, 1 channel slot or more, height, width), floating point",
                got=f"{tuple(signal.shape)} {signal.dtype}",
            )
        slots, height, width = signal.shape[1:]
        rows, columns = self._grid((height, width))
        before, after = self._layout()
        values = rearrange(signal, f"{before} -> {after}", p0=self.patch[0], p1=self.patch[1])
        device = signal.device
        coords = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
        channel = torch.arange(slots, device=device).repeat_interleave(rows * columns)
        tokens = ChannelTokens(
            values, coords.repeat(slots, 1), self.axes, (rows, columns), channel, extents=(slots, height, width)
        )
        if torch.compiler.is_exporting():  # every slot is taken to be there: no graph can choose by its input
            return cast(ChannelTokens, tokens.without_nan())
        there = ~values.isnan()
        valid = there.any(-1)
        # One wait for the device: how long a row is decides the shape of everything after it.
        fewest, most = (int(count) for count in torch.stack(valid.sum(1).aminmax()).tolist())
        if fewest == 0:
            raise DataError(
                "A sample has no channel with any value.",
                where=f"sample {int((~valid.any(1)).nonzero()[0])} of a batch of {tokens.batch}",
                expected="1 channel or more",
                got=f"{slots} slots, all absent",
            )
        if fewest == tokens.length:
            return tokens if bool(there.all()) else _filled(tokens, there)
        order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        wide = order[..., None].expand(-1, -1, values.shape[-1])
        kept = ChannelTokens(
            values.gather(1, wide),
            tokens.coords[order],
            self.axes,
            None,
            channel[order],
            valid.gather(1, order) if fewest < most else None,
            extents=tokens.extents,
        )
        return _filled(kept, there.gather(1, wide))

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        if not isinstance(like, ChannelTokens):
            raise ShapeError(
                "Tokenizer 'channels' can't tell the extents of the signal.",
                expected="tokens that its own tokenize gave",
                got=type(like).__name__,
            )
        if like.grid is not None:
            return super().detokenize(values, like)
        assert like.channel is not None, "tokenize names every token's channel"
        slots, height, width = like.extents
        rows, columns = self._grid((height, width))
        values = like.absent_as_nan(values)
        place = (like.channel * rows + like.coords[..., 0]) * columns + like.coords[..., 1]
        length = slots * rows * columns
        if like.valid is not None:
            place = place.masked_fill(~like.valid, length)  # padding goes to a spare last place
        whole = values.new_full((like.batch, length + 1, values.shape[-1]), torch.nan)
        whole = whole.scatter(1, place[..., None].expand_as(values), values)[:, :length]
        before, after = self._layout()
        return rearrange(whole, f"{after} -> {before}", g0=rows, g1=columns, p0=self.patch[0], p1=self.patch[1])

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """One batch (B, V, H, W) out of samples (V, H, W), filled up with NaN to the most slots and the largest."""
        return super().collate([self._as_float(signal[None])[0] for signal in signals])

    def prepare(self, signal: Tensor) -> Tensor:
        """The centre of each sample, (B, V, *eval_size), standardised. A smaller one lies at the top left."""
        signal = self._as_float(signal)
        present, size = Present.of(signal), self.eval_size
        if tuple(signal.shape[2:]) == size:  # then there is nothing to cut off
            return self._finished(present.values, present, signal)
        return self._finished(present.windows(*self._central(present)), present, signal)

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        """A random window of each sample, turned, of some of its channels, each sample by its own noise."""
        signal = self._as_float(signal)
        if signal.shape[1] > self.channels and self.settings.unknown_channels == "refuse":
            raise ConfigError(
                "The training data has more channel slots than the model tells apart.",
                where="tokenizer.channels",
                expected=f"{signal.shape[1]} or more",
                got=self.channels,
                fix=f"Set tokenizer.channels={signal.shape[1]}, join names that mean the same by the source's aliases, "
                "or set tokenizer.unknown_channels=anonymous.",
            )
        some = fewer_channels(signal, noise) if self.settings.channel_sampling == "hierarchical" else None
        present = Present.of(signal, some)
        return self._finished(present.windows(*self._drawn(present, noise)), present, signal)

    def _central(self, present: Present) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Top and left of the window that `prepare` takes of each sample, and its size."""
        size = torch.tensor(self.eval_size, device=present.values.device)
        top, left = ((present.extents - size).clamp(min=0) // 2).unbind(1)
        return top, left, self.eval_size

    def _drawn(self, present: Present, noise: Noise) -> tuple[Tensor, Tensor, tuple[int, int], Tensor | None]:
        """Top and left of the window that `augment` takes of each sample, its size, and how it is turned."""
        room = (present.extents - torch.tensor(self.size, device=present.values.device)).clamp(min=0)
        if self.settings.crop:
            draws = noise.uniform(2, purpose="crop")
            corner = torch.minimum((draws * (room + 1)).long(), room)  # float32 may round u * (n + 1) up to n + 1
        else:
            corner = room // 2
        turn = None
        if self.settings.turn:
            kinds = TURNS if self.size[0] == self.size[1] else TURNS // 2
            turn = (noise.uniform(1, purpose="turn")[:, 0] * kinds).long()
        return corner[:, 0], corner[:, 1], pair(self.settings.size), turn

    def move_target(self, target: Tensor, stored: Tensor, noise: Noise | None = None) -> Tensor:
        """Classes of pixels (B, H, W) to those of the same windows, -1 beyond the picture."""
        if target.shape != (len(stored), *stored.shape[2:]):
            raise ShapeError(
                "A target isn't one class for each pixel of its picture.",
                expected=(len(stored), *stored.shape[2:]),
                got=tuple(target.shape),
            )
        present = Present.of(self._as_float(stored))
        own = Present(target.double(), torch.arange(len(target), device=target.device), present.slot, present.extents)
        moved = own.windows(*(self._central(own) if noise is None else self._drawn(own, noise)))
        return moved.nan_to_num(-1).to(target.dtype)

    def _finished(self, values: Tensor, present: Present, signal: Tensor) -> Tensor:
        """The windows of the channels that are there, standardised, as a batch."""
        if self.settings.standardise == "image":
            values = standardise(values, self.settings.epsilon)
        return present.put_back(values, signal.shape[0], signal.shape[1])

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Smooth random fields (B, channels, *eval_size), every channel there."""
        if self.size == self.eval_size:
            return super().example(batch, generator)
        whole = self.settings.model_copy(update={"size": self.eval_size, "eval_size": None})
        return ChannelsTokenizer(whole).example(batch, generator)

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """(B, 3, rows of pixels, W): a grey picture per channel that the batch has, then all of them in colours."""
        return draw(signal, signal if like is None else like)

    def scales(self, signal: Tensor) -> Scales:
        """The names of the pictures on top of each other."""
        slots = drawn_slots(signal)
        known = (*self.settings.names, *self.channel_names[len(self.settings.names) :])
        names = [known[slot] if slot < len(known) else f"channel {slot}" for slot in slots]
        count = len(names) + 1
        ticks = tuple(((place + 0.5) / count, name) for place, name in enumerate([*names, "together"]))
        return Scales(vertical=Scale(ticks=ticks))

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor:
        marks = chosen[..., None].expand_as(tokens.values).to(torch.float32)
        marked = self.detokenize(marks, tokens)
        cells = marked.unfold(2, self.patch[0], self.patch[0]).unfold(3, self.patch[1], self.patch[1])
        there = ~cells.isnan().flatten(4).all(4)
        chosen_cells = cells.nan_to_num(0).flatten(4).amax(4) > 0
        return footprint(chosen_cells, there, drawn_slots(marked), pair(self.settings.patch))

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """Mean of each slot, and mean with standard deviation, of the pixels that are there; 0 where it is absent."""
        pixels = self._as_float(stored).flatten(2)
        mean = pixels.nanmean(2)
        spread = (pixels - mean[..., None]).square().nanmean(2).sqrt()
        both = torch.cat([mean, spread], 1)
        return {"mean intensities": mean.nan_to_num(0), "means and spreads": both.nan_to_num(0)}

    @staticmethod
    def _as_float(signal: Tensor) -> Tensor:
        """(B, V, H, W) float32 or float64, uint8 and uint16 divided by their largest value. Raises ShapeError."""
        if signal.dim() == 4 and signal.is_floating_point():
            return signal.to(torch.promote_types(signal.dtype, torch.float32))
        if signal.dim() != 4 or signal.dtype not in _FULL_SCALE:
            raise ShapeError(
                "Tokenizer 'channels' can't take this signal.",
                expected="(batch, channel slots, height, width), floating point, uint8 or uint16",
                got=f"{tuple(signal.shape)} {signal.dtype}",
            )
        return signal.to(torch.float32) / _FULL_SCALE[signal.dtype]


def _filled(tokens: ChannelTokens, there: Tensor) -> ChannelTokens:
    """The same tokens with zeros in place of NaN; `observed` says where, unless only whole tokens are absent."""
    partly = there != there[..., :1]
    return replace(tokens, values=tokens.values.masked_fill(~there, 0), observed=there if bool(partly.any()) else None)
