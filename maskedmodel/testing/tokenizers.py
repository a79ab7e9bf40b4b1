"""Checks of how a tokenizer cuts. Each takes one, built from its settings, and raises CheckFailed or NotApplicable.

A tokenizer declares as attributes of its class where its way back isn't exact, and where its tokens share values:

    round_trip_tolerance = 1e-6  # largest difference, as a share of the signal's largest value
    overlapping = True           # partition and round trip are then waived
"""

from __future__ import annotations

import copy
import re

import torch
from torch import Tensor

from maskedmodel.errors import MaskedModelError, ShapeError
from maskedmodel.testing.rules import (
    CheckFailed,
    NotApplicable,
    difference,
    require,
    require_finite_padding,
    sample_of,
    tokens_differ,
)
from maskedmodel.testing.signals import AnyTokenizer, prepared
from maskedmodel.tokens import Tokens


def check_layout(tokenizer: AnyTokenizer) -> None:
    """Axes, coordinates, grid and channels describe the tokens consistently."""
    tokens = tokenizer.tokenize(prepared(tokenizer))
    require(
        tokens.axes == tuple(tokenizer.axes),
        tokenizer,
        "tokens name other axes than their tokenizer",
        expected=tokenizer.axes,
        got=tokens.axes,
    )
    require(torch.isfinite(tokens.coords.float()).all(), tokenizer, "coordinates aren't finite")
    _check_channels(tokenizer, tokens)
    _check_places(tokenizer, tokens)
    if tokens.grid is not None:
        _check_raster(tokenizer, tokens, tokens.grid)


def _check_channels(tokenizer: AnyTokenizer, tokens: Tokens) -> None:
    count, described = tokenizer.channel_count, tokenizer.channel_features
    _check_descriptions(tokenizer, tokens)
    if tokens.channel is None:
        require(count == 0, tokenizer, f"channel_count is {count}, but tokens carry no channel", expected=0, got=count)
        return
    low, high = int(tokens.channel.min()), int(tokens.channel.max())
    some = f" to {count - 1}" if count or not described else ""  # described alone, there may be any number of them
    require(
        tokens.channel.dtype == torch.int64 and low >= 0 and (high < count or not some),
        tokenizer,
        "Tokens.channel doesn't fit channel_count",
        expected=f"int64 from 0{some}",
        got=f"{tokens.channel.dtype} from {low} to {high}",
        fix="Set channel_count to the number of distinct channels.",
    )


def _check_descriptions(tokenizer: AnyTokenizer, tokens: Tokens) -> None:
    """Channels are described by as many values as the tokenizer says, finite ones, and a channel by one description."""
    width, features = tokenizer.channel_features, tokens.channel_features
    got = 0 if features is None else features.shape[-1]
    require(
        got == width,
        tokenizer,
        "Tokens.channel_features doesn't fit channel_features",
        expected=f"{width} values per token" if width else "None",
        got=f"{got} values per token" if got else "None",
        fix="Set channel_features in the class to the number of values that describe a channel.",
    )
    if features is None:
        return
    require(
        features.is_floating_point() and bool(torch.isfinite(features).all()),
        tokenizer,
        "Tokens.channel_features aren't finite numbers",
        expected="floating point, finite for padding, too",
        got=f"{features.dtype}, {int((~torch.isfinite(features)).sum())} of {features.numel()} not finite",
    )
    for row in range(tokens.batch):
        _, _, channel, own = sample_of(tokens, row)
        assert own is not None
        channel = torch.zeros(len(own), dtype=torch.int64) if channel is None else channel
        pairs = torch.cat([channel[:, None].double(), own.double()], 1)
        descriptions, channels = len(torch.unique(pairs, dim=0)), len(torch.unique(channel))
        require(
            descriptions == channels,
            tokenizer,
            "a channel is described in more ways than one",
            expected=f"{channels} descriptions of the {channels} channels in sample {row}",
            got=descriptions,
            fix="Give all tokens of a channel the same description, and channels that differ their own Tokens.channel.",
        )


def _check_places(tokenizer: AnyTokenizer, tokens: Tokens) -> None:
    for row in range(tokens.batch):
        coords = tokens.coords if tokens.coords.dim() == 2 else tokens.coords[row]
        place = coords.double()
        if tokens.channel is not None:
            channel = tokens.channel if tokens.channel.dim() == 1 else tokens.channel[row]
            place = torch.cat([place, channel[:, None].double()], 1)
        if tokens.valid is not None:
            place = place[tokens.valid[row]]
        distinct = len(set(map(tuple, place.tolist())))
        require(
            distinct == place.shape[0],
            tokenizer,
            "two tokens stand at one place",
            expected=f"{place.shape[0]} distinct (coords, channel) in sample {row}",
            got=distinct,
            fix="Give each token its own coordinates, or its own channel where channels share them.",
        )


def _check_raster(tokenizer: AnyTokenizer, tokens: Tokens, grid: tuple[int, ...]) -> None:
    cells = torch.cartesian_prod(*(torch.arange(extent) for extent in grid)).reshape(-1, len(grid))
    fills = tokens.length / len(cells)
    require(
        fills >= 1 and fills.is_integer() and (fills == 1 or tokens.channel is not None),
        tokenizer,
        "the number of tokens doesn't fit the grid",
        expected=f"L = channels * {len(cells)} for the grid {grid}",
        got=f"L = {tokens.length}",
        fix="Set grid to None where tokens don't fill one.",
    )
    expected = cells.repeat(int(fills), 1)
    coords = tokens.coords if tokens.coords.dim() == 3 else tokens.coords[None]
    wrong = (coords != expected).any(-1).any(0)
    require(
        not wrong.any(),
        tokenizer,
        "tokens on a grid aren't in raster order",
        expected="the last axis fastest, channel by channel",
        got=f"{int(wrong.sum())} of {tokens.length} tokens elsewhere, the first is token {int(wrong.int().argmax())}",
    )
    extents = tokenizer.extents
    require(
        extents is None or (len(extents) == len(grid) and all(n >= 1 for n in extents)),
        tokenizer,
        "extents don't fit the axes",
        expected=f"{len(grid)} numbers from 1, such as {grid}",
        got=extents,
    )


def check_padding(tokenizer: AnyTokenizer) -> None:
    """Padding has finite values, and every sample has two real tokens at least: one to hide, one to show."""
    tokens = tokenizer.tokenize(prepared(tokenizer))
    if tokens.valid is None:
        require(
            tokens.length >= 2,
            tokenizer,
            "a signal of one token can't be masked",
            expected="2 tokens or more",
            got=tokens.length,
        )
        raise NotApplicable("the example batch has no padding")
    require(tokens.valid.dtype == torch.bool, tokenizer, "Tokens.valid isn't bool", got=tokens.valid.dtype)
    fewest = int(tokens.valid.sum(1).min())
    require(fewest >= 2, tokenizer, "a sample has too few real tokens to mask", expected="2 or more", got=fewest)
    require_finite_padding(tokenizer, tokens)


def check_round_trip(tokenizer: AnyTokenizer) -> None:
    """`detokenize(tokenize(x))` is x, or within the `round_trip_tolerance` that the class declares."""
    _waive_overlapping(tokenizer)
    signal = prepared(tokenizer)
    tokens = tokenizer.tokenize(signal)
    back = tokenizer.detokenize(tokens.values, tokens)
    tolerance = tokenizer.round_trip_tolerance
    require(
        back.shape == signal.shape,
        tokenizer,
        "detokenize gives another shape than went in",
        expected=tuple(signal.shape),
        got=tuple(back.shape),
    )
    away = difference(back, signal)
    require(
        away <= tolerance,
        tokenizer,
        "detokenize(tokenize(x)) isn't x",
        expected=f"a difference of at most {tolerance:g} of the largest value",
        got=f"{away:.3g}",
        fix="Make it exact, or declare the bound: round_trip_tolerance = ... in the class.",
    )


def check_partition(tokenizer: AnyTokenizer) -> None:
    """Tokens partition the signal: no value of the signal enters two tokens, and no two tokens write one value.

    Any two tokens differ in some bit of their index. So for each bit the tokens that have it are given the values of
    another sample: the signal values they write must not be written by the tokens without it, and when those
    signal values change, no token without it may change. That is exact, and takes 4 log2(L) calls.
    """
    _waive_overlapping(tokenizer)
    signal = prepared(tokenizer)
    tokens = tokenizer.tokenize(signal)
    back = tokenizer.detokenize(tokens.values, tokens)
    index, seen = torch.arange(tokens.length), False
    for bit in range(max((tokens.length - 1).bit_length(), 1)):
        sides = [(index >> bit & 1) == side for side in (0, 1)]
        written = []
        for side in sides:
            values = torch.where(side[None, :, None], tokens.values.flip(0), tokens.values)
            written.append(_moved(tokenizer.detokenize(values, tokens), back))
        shared = int((written[0] & written[1]).sum())
        require(
            shared == 0,
            tokenizer,
            "two tokens write the same value of the signal",
            expected="each value of the signal in one token",
            got=f"{shared} of {signal.numel()} values shared",
            fix="Cut without overlap, or declare overlapping = True in the class.",
        )
        for side, mine in zip(sides, written, strict=True):
            seen = seen or bool(mine.any())
            changed = tokenizer.tokenize(torch.where(mine, signal.flip(0), signal)).values
            leaks = int(_moved(changed, tokens.values)[:, ~side].any(-1).any(0).sum())
            require(
                leaks == 0,
                tokenizer,
                "a value of the signal enters two tokens, so a hidden token shows in a visible one",
                expected="a change of some tokens' values leaves all other tokens alone",
                got=f"{leaks} of {int((~side).sum())} other tokens changed",
                fix="Cut without overlap, and normalise in prepare, not across the tokens of a signal. Or declare "
                "overlapping = True in the class: users are told of the leak.",
            )
    require(seen, tokenizer, "detokenize ignores the values it is given", expected="other values, other signal")


def _waive_overlapping(tokenizer: AnyTokenizer) -> None:
    if tokenizer.overlapping:
        raise NotApplicable(
            "waived, as the class declares overlapping = True: hidden values may show in visible tokens"
        )


def _moved(after: Tensor, before: Tensor) -> Tensor:
    """Where two tensors of one shape differ by more than rounding."""
    if after.shape != before.shape:
        raise ShapeError("A change of values changed a shape.", expected=tuple(before.shape), got=tuple(after.shape))
    return (after - before).abs() > 1e-6 * before.nan_to_num().abs().max()


def check_samples_independent(tokenizer: AnyTokenizer) -> None:
    """A sample's tokens don't depend on the batch it comes in: its order, its size, its other samples."""
    signal = prepared(tokenizer)
    tokens = tokenizer.tokenize(signal)
    order = [2, 0, 3, 1]
    shuffled = tokenizer.tokenize(signal[torch.tensor(order)])
    for place, row in enumerate(order):
        alone = tokenizer.tokenize(signal[row : row + 1])
        for how, batch, at in (("in another order", shuffled, place), ("alone", alone, 0)):
            found = tokens_differ(batch, at, tokens, row)
            require(
                found is None,
                tokenizer,
                f"sample {row} is cut differently {how}",
                expected="the same tokens in any batch",
                got=found,
                fix="Compute no statistic over the batch.",
            )


def check_dtype(tokenizer: AnyTokenizer) -> None:
    """float32, float64 and bfloat16 signals give tokens, and signals back, of their own type, or a clear refusal."""
    signal = prepared(tokenizer)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        try:
            tokens = tokenizer.tokenize(signal.to(dtype))
        except MaskedModelError:
            if dtype == torch.float32:
                raise
            continue  # a clear refusal is allowed for the others
        back = tokenizer.detokenize(tokens.values, tokens)
        for what, got in (("tokenize", tokens.values.dtype), ("detokenize", back.dtype)):
            require(
                got == dtype,
                tokenizer,
                f"{what} changes the type of the values",
                expected=dtype,
                got=got,
                fix="Bring constants and buffers to the signal with .to(signal), and call no .float().",
            )


def check_device(tokenizer: AnyTokenizer) -> None:
    """Tokens lie on the signal's device. Without an accelerator torch's meta device, which has no values, stands in."""
    signal = prepared(tokenizer)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = accelerator or torch.device("meta")
    moved = copy.deepcopy(tokenizer).to(device)
    fix = "Make tensors with device=signal.device; register constants with self.register_buffer."
    try:
        tokens = moved.tokenize(signal.to(device))
        back = moved.detokenize(tokens.values, tokens)
    except (NotImplementedError, RuntimeError) as error:
        if device.type == "meta" and "same device" not in str(error):
            raise NotApplicable("tokenize reads values, and there is no accelerator to try it on") from error
        text = str(error).splitlines()[0]
        raise CheckFailed(tokenizer, f"can't work on device {device.type}", got=text, fix=fix) from error
    found = {name: getattr(tokens, name) for name in ("values", "coords", "channel", "valid", "channel_features")}
    for name, tensor in (*found.items(), ("the signal of detokenize", back)):
        require(
            tensor is None or tensor.device.type == device.type,
            tokenizer,
            f"{name} left the signal's device",
            expected=device.type,
            got=None if tensor is None else tensor.device.type,
            fix=fix,
        )


def check_wrong_shapes(tokenizer: AnyTokenizer) -> None:
    """A signal that can't be cut is refused by a ShapeError with the numbers in it; any other comes back whole."""
    signal = prepared(tokenizer)
    wrong = {"one dimension": signal.flatten()[:7], "one dimension too many": signal.unsqueeze(-1)}
    if signal.dim() > 2:
        wrong["one dimension less"] = signal[..., 0]
    for dim in range(1, signal.dim()):
        wrong[f"dimension {dim} shorter by one"] = signal.narrow(dim, 0, signal.shape[dim] - 1)
    for what, given in wrong.items():
        shape = tuple(given.shape)
        try:
            tokens = tokenizer.tokenize(given)
        except ShapeError as error:
            require(
                re.search(r"\d", str(error)) is not None,
                tokenizer,
                f"the refusal of a signal with {what} has no numbers",
                expected="the shape that can be cut and the shape that came",
                got=str(error),
                fix="raise ShapeError(..., expected=..., got=tuple(signal.shape))",
            )
            continue
        except Exception as error:
            raise CheckFailed(
                tokenizer,
                f"a signal with {what} isn't refused by a ShapeError",
                expected=f"ShapeError for {shape}",
                got=f"{type(error).__name__}: {error}",
                fix="Check the shape first: raise ShapeError(..., expected=..., got=tuple(signal.shape)).",
            ) from error
        back = tuple(tokenizer.detokenize(tokens.values, tokens).shape)
        require(
            back == shape and given.dim() > 1,
            tokenizer,
            f"a signal with {what} is cut, but doesn't come back",
            expected=f"ShapeError, or the shape {shape} back",
            got=back,
            fix="Refuse what can't be cut: raise ShapeError(..., expected=..., got=tuple(signal.shape)).",
        )
