"""Features of a whole data set, and files of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.engine.signals import Pool, SignalModel
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.files import replacing, spreadsheet_cell
from maskedmodel.training.data import UNLABELLED, Reading, eval_batches
from maskedmodel.training.memory import Fitting

Kind = Pool | Literal["tokens"]  # tokens: none is pooled
KINDS = (*get_args(Pool), "tokens")
Progress = Callable[[int, int], None]  # (samples done, samples in all)
SUFFIXES = (".parquet", ".npz", ".csv")
GIB = 2**30
MOST_TOKENS = 8 * GIB  # what features of tokens may fill


@dataclass(frozen=True, eq=False)
class Features:
    """One vector per sample, in the order of the data set.

    values   (N, D) float32, on the CPU.
    labels   (N,) int64, -1 where a sample has none; None where no sample has one.
    ids      the N samples' ids.
    groups   of each sample: what must stay on one side of a fold.
    digests  hash of each prepared signal, where asked for: equal signals have equal ones.
    tokens   (N,) int64 where each vector is one of a token, not of a sample: which one, in raster order.
    """

    values: Tensor
    labels: Tensor | None
    ids: tuple[str | int, ...]
    groups: tuple[str, ...] = ()
    digests: tuple[bytes, ...] = ()
    tokens: Tensor | None = None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module and all in it are in eval mode; afterwards each is as it was."""
    was = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in was.items():
            part.training = training


def collect(
    dataset: SampleDataset,
    tokenizer: Tokenizer[Any],
    views: Mapping[str, Callable[[Tensor], Tensor]],
    reading: Reading | None = None,
    *,
    plain: bool = False,
    digests: bool = False,
    progress: Progress | None = None,
) -> dict[str, Features]:
    """Several views of the same samples in one pass over the data: each maps a prepared batch to (B, D).

    `plain` adds the tokenizer's plain features. Where batches differ in width (ragged signals), rows are filled up
    with zeros to the widest. Where memory runs out, fewer rows at a time are taken, which is told.
    Raises DataError where there is no sample.
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in views}
    labels: list[Tensor] = []
    ids: list[str | int] = []
    groups: list[str] = []
    hashes: list[bytes] = []
    reading = reading or Reading()
    total = len(dataset) if reading.limit is None else min(reading.limit, len(dataset))
    batches = eval_batches(dataset, tokenizer, reading)
    fitting = Fitting("the features")
    with torch.inference_mode():
        for item in batches:
            for name, view in views.items():
                taken = fitting(lambda part, view=view, item=item: view(item.signal[part]), len(item.ids))  # type: ignore[misc]
                rows[name].append(torch.cat(taken).float().cpu())
            if plain and item.stored is not None:
                for name, values in tokenizer.plain_features(item.stored).items():
                    rows.setdefault(name, []).append(values.float().cpu())
            if digests:
                hashes += [hashlib.blake2b(row.tobytes()).digest() for row in item.signal.cpu().numpy()]
            labels.append(item.labels)
            ids += item.ids
            groups += item.groups
            if progress is not None:
                progress(len(ids), total)
    if not ids:
        raise DataError("There is no sample to take features of.", expected="1 or more", got=f"limit {reading.limit}")
    every = torch.cat(labels)
    known = None if bool((every == UNLABELLED).all()) else every
    return {
        name: Features(_stack(parts), known, tuple(ids), tuple(groups), tuple(hashes)) for name, parts in rows.items()
    }


def _stack(parts: list[Tensor]) -> Tensor:
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts])


def extract(
    model: SignalModel,
    dataset: SampleDataset,
    reading: Reading | None = None,
    *,
    pool: Kind = "mean",
    layer: int | Literal["last"] = "last",
    progress: Progress | None = None,
) -> Features:
    """The encoder's features of a data set: eval mode, nothing masked, float32.

    `pool` and `layer` as in `SignalModel.embed`; with `pool="tokens"` one vector per token that is real, those of a
    sample in raster order, one sample after the other. Samples that can't be read are treated as `reading` says. The
    model's modes are left as they were. Raises ShapeError where the encoder has no such layer or class token, DataError
    where features of tokens would fill more than MOST_TOKENS.
    """
    if pool != "tokens":
        views = {"": lambda signal: model.embed(signal, pool, layer)}
        with evaluating(model):
            return collect(dataset, model.tokenizer, views, reading, progress=progress)[""]
    total = len(dataset) if reading is None or reading.limit is None else min(reading.limit, len(dataset))

    def every(signal: Tensor) -> Tensor:
        found = model.encode(signal, layer)
        _require_room(total, *found.shape[1:])
        return found.flatten(1)

    def real(signal: Tensor) -> Tensor:
        tokens = model.tokens(signal)
        return tokens.values.new_ones(tokens.batch, tokens.length) if tokens.valid is None else tokens.valid.float()

    with evaluating(model):
        both = collect(dataset, model.tokenizer, {"": every, "real": real}, reading, progress=progress)
    return _by_token(both[""], both["real"].values > 0)


def _require_room(samples: int, length: int, width: int) -> None:
    needed = 4 * samples * length * width
    if needed > MOST_TOKENS:
        raise DataError(
            "The features of every token are too many for one file.",
            where="pool=tokens",
            expected=f"at most {MOST_TOKENS / GIB:g} GiB",
            got=f"{needed / GIB:.3g} GiB: {samples} samples of {length} tokens of {width} values",
            fix="Take fewer samples at a time, or pool them.",
        )


def _by_token(whole: Features, real_NL: Tensor) -> Features:
    """Features (N, L * D) as one row for each token that is real."""
    samples, length = real_NL.shape
    row, token = real_NL.nonzero(as_tuple=True)
    rows: list[int] = row.tolist()
    return Features(
        whole.values.reshape(samples, length, -1)[real_NL],
        None if whole.labels is None else whole.labels[row],
        tuple(whole.ids[index] for index in rows),
        tuple(whole.groups[index] for index in rows) if whole.groups else (),
        tokens=token,
    )


def flat_tokens(tokenizer: Tokenizer[Any], signal: Tensor) -> Tensor:
    """The token values of a prepared batch as one vector per sample (B, L * P), padding as zeros."""
    tokens = tokenizer.tokenize(signal)
    values = tokens.values if tokens.valid is None else tokens.values.masked_fill(~tokens.valid[..., None], 0)
    return values.flatten(1)


def raw(
    tokenizer: Tokenizer[Any],
    dataset: SampleDataset,
    reading: Reading | None = None,
    *,
    progress: Progress | None = None,
) -> Features:
    """The values a model is given, without a model: the baseline a pretrained encoder has to beat."""
    device = next((buffer.device for buffer in tokenizer.buffers()), torch.device("cpu"))
    views = {"": lambda signal: flat_tokens(tokenizer, signal)}
    found = collect(dataset, tokenizer, views, replace(reading or Reading(), device=device), progress=progress)
    return found[""]


def joined(parts: Sequence[Features]) -> Features:
    """Features of several data sets as one."""
    labels = [torch.full((len(part.ids),), UNLABELLED) if part.labels is None else part.labels for part in parts]
    return Features(
        _stack([part.values for part in parts]),
        None if all(part.labels is None for part in parts) else torch.cat(labels),
        tuple(i for part in parts for i in part.ids),
        tuple(group for part in parts for group in part.groups),
        tuple(digest for part in parts for digest in part.digests),
        torch.cat([part.tokens for part in parts if part.tokens is not None]) if parts[0].tokens is not None else None,
    )


def save(features: Features, path: Path | str, about: Mapping[str, Any] | None = None) -> Path:
    """Write features to a file, whole or not at all.

    .parquet  columns id, label (where known), token (where rows are of tokens), feature (a fixed-size list of float32)
    .npz      arrays id, label, token, feature
    .csv      columns id, label, token, f0, f1, ...: nine digits, which give the same float32 back; an id that a
              spreadsheet would take for a formula has a quote before it

    A sample without a label has null in parquet, nothing in a csv, and -1 in an npz. `about`, what was done, goes with
    them as JSON: in parquet's metadata under "maskedmodel", in an npz as the text `about`, of a csv in a file NAME.json
    beside.

    Raises DataError on another suffix, a missing folder or a full disk; DependencyError without pyarrow.
    """
    path = check_target(path)
    writers = {".parquet": _parquet, ".npz": _npz, ".csv": _csv}
    said = None if about is None else json.dumps(dict(about), indent=2)
    try:
        with replacing(path) as file:
            writers[path.suffix](features, file, said)
        if said is not None and path.suffix == ".csv":
            with replacing(path.with_name(f"{path.name}.json")) as file:
                file.write(f"{said}\n".encode())
    except OSError as error:
        raise DataError(
            "The features can't be written.",
            where=path,
            got=error.strerror or error,
            fix="Name a folder that exists, may be written to and has room.",
        ) from error
    return path


def check_target(path: Path | str) -> Path:
    """The path. Raises DataError where features can't be written to a file of this kind."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(
            "Features can't be written to a file of this kind.",
            where=path,
            expected=", ".join(SUFFIXES),
            got=path.suffix or "no suffix",
        )
    return path


def _ids(features: Features) -> list[str] | list[int]:
    """Ids as one type: integers where all are, else text."""
    numbers = [i for i in features.ids if isinstance(i, int)]
    return numbers if len(numbers) == len(features.ids) else [str(i) for i in features.ids]


def _parquet(features: Features, file: IO[bytes], about: str | None) -> None:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(
            "Writing parquet needs pyarrow.", fix=f"{install_hint(extra='parquet')} Or write .npz or .csv."
        ) from error
    flat = pa.array(features.values.numpy().reshape(-1), pa.float32())
    columns = {"id": pa.array(_ids(features))}
    if features.labels is not None:
        missing = (features.labels == UNLABELLED).numpy()
        columns["label"] = pa.array(features.labels.numpy(), mask=missing if missing.any() else None)
    if features.tokens is not None:
        columns["token"] = pa.array(features.tokens.numpy())
    columns["feature"] = pa.FixedSizeListArray.from_arrays(flat, features.values.shape[1])
    table = pa.table(columns)
    parquet.write_table(table if about is None else table.replace_schema_metadata({"maskedmodel": about}), file)


def _npz(features: Features, file: IO[bytes], about: str | None) -> None:
    arrays = {"id": np.array(_ids(features)), "feature": features.values.numpy()}
    if features.labels is not None:
        arrays["label"] = features.labels.numpy()
    if features.tokens is not None:
        arrays["token"] = features.tokens.numpy()
    if about is not None:
        arrays["about"] = np.array(about)
    np.savez(file, **arrays)  # type: ignore[arg-type]


def _csv(features: Features, file: IO[bytes], about: str | None) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns: dict[str, Sequence[object]] = {"id": _ids(features)}
    if features.labels is not None:
        columns["label"] = ["" if x == UNLABELLED else x for x in features.labels.tolist()]
    if features.tokens is not None:
        columns["token"] = features.tokens.tolist()
    writer.writerow([*columns, *(f"f{i}" for i in range(features.values.shape[1]))])
    for (name, *own), row in zip(zip(*columns.values(), strict=True), features.values.tolist(), strict=True):
        writer.writerow([spreadsheet_cell(name), *own, *(f"{value:.9g}" for value in row)])
    text.detach()
