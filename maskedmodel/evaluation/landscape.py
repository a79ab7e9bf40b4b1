"""Features to look at: a map in two dimensions, who is taken for whom, and who stands nearest to whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.errors import DependencyError, install_hint
from maskedmodel.evaluation.classifiers import knn_predict
from maskedmodel.evaluation.thumbnails import Thumbnails
from maskedmodel.training.data import spread

MOST = 600  # samples on a map
SHOWN, NEAREST = 6, 5  # samples whose neighbours are listed, and how many each
Method = Literal["pca", "tsne", "umap"]


@dataclass(frozen=True)
class Landscape:
    """Of one encoder's features of test samples; lists of equal length N unless said otherwise.

    of         the encoder's name.
    method     how the map was made; `shares` of the variance its two axes hold, of PCA.
    x, y       places on the map.
    ids        the samples' ids; `labels` what they are.
    classes    what the labels are called, by label, C of them.
    confusion  (C, C) counts over all test samples: rows what they are, columns what k-NN took them for.
    near       for a few samples: its id and label, and id, label and cosine similarity of the nearest training samples.
    rows       of the samples on the map in the features, and `near_rows` those of each of `near` and its neighbours.
    tiles      small pictures of all of them, or None.
    """

    of: str
    method: Method
    shares: tuple[float, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: Mapping[str, str]
    confusion: tuple[tuple[int, ...], ...]
    near: tuple[Any, ...] = ()
    rows: tuple[int, ...] = ()
    near_rows: tuple[tuple[int, ...], ...] = ()
    tiles: Thumbnails | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Landscape:
        lists = ("shares", "x", "y", "ids", "labels")
        found = {**values, **{name: tuple(values[name]) for name in lists}}
        found["confusion"] = tuple(tuple(row) for row in values["confusion"])
        found["near"] = tuple(_frozen(one) for one in values["near"])
        found["rows"], found["near_rows"] = (_frozen(values.get(name, [])) for name in ("rows", "near_rows"))
        tiles = values.get("tiles")
        found["tiles"] = None if tiles is None else Thumbnails.from_dict(tiles)
        return cls(**found)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list | tuple) else value


def survey(
    of: str,
    features_ND: Tensor,
    ids: Sequence[str | int],
    labels: Tensor,
    fold: tuple[Tensor, Tensor],
    names: Sequence[str] | None,
    *,
    neighbours: int,
    temperature: float,
    method: Method,
    seed: int,
) -> Landscape:
    """What is to be seen of features (N, D): the samples `fold[1]`, judged by those of `fold[0]`."""
    a, b = fold
    x, z = features_ND[a], features_ND[b]
    known = sorted(set(labels[a].tolist()) | set(labels[b].tolist()))
    place = {label: number for number, label in enumerate(known)}
    taken = knn_predict(x, labels[a], z, neighbours, temperature).tolist()
    counts = Counter(zip(labels[b].tolist(), taken, strict=True))
    chosen = torch.tensor(spread(len(b), MOST))
    points, shares = flat(z[chosen], method, seed)
    called = {str(label): str(names[label]) if names and label < len(names) else str(label) for label in known}
    near, near_rows = [], []
    similarity = F.normalize(z[spread(len(b), SHOWN)], dim=1) @ F.normalize(x, dim=1).T
    for row, own in zip(similarity, b[spread(len(b), SHOWN)].tolist(), strict=True):
        values, order = row.topk(min(NEAREST, len(a)))
        found = [
            (str(ids[int(a[index])]), int(labels[a[index]]), round(float(value), 4))
            for value, index in zip(values, order.tolist(), strict=True)
        ]
        near.append((str(ids[own]), int(labels[own]), tuple(found)))
        near_rows.append((own, *(int(a[index]) for index in order.tolist())))
    return Landscape(
        of,
        method,
        tuple(round(share, 4) for share in shares),
        tuple(round(value, 4) for value in points[:, 0].tolist()),
        tuple(round(value, 4) for value in points[:, 1].tolist()),
        tuple(str(ids[index]) for index in b[chosen].tolist()),
        tuple(labels[b[chosen]].tolist()),
        called,
        tuple(tuple(counts[(row, column)] for column in place) for row in place),
        tuple(near),
        tuple(b[chosen].tolist()),
        tuple(near_rows),
    )


def check_method(method: Method) -> None:
    """Raise DependencyError where a map of this kind needs a package that isn't installed."""
    if method == "umap":
        _umap()


def _umap() -> Any:
    try:
        import umap  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise DependencyError(
            "A map by UMAP needs umap-learn.",
            where="evaluate.map",
            got="umap",
            fix=f"{install_hint('umap-learn')} Or set evaluate.map=tsne, which needs nothing more.",
        ) from error
    return umap


def flat(features_ND: Tensor, method: Method, seed: int) -> tuple[Tensor, list[float]]:
    """Places (N, 2), and the shares of the variance that two axes of PCA hold.

    The value that is largest in size is positive on each axis of PCA, so that a map is never mirrored.
    """
    x = features_ND.double() - features_ND.double().mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    axes = u[:, :2] * s[:2]
    if axes.shape[1] < 2:
        axes = F.pad(axes, (0, 2 - axes.shape[1]))
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    total = float(s.square().sum())
    shares = [float(value) ** 2 / total if total else 0.0 for value in s[:2].tolist()]
    if method == "pca" or len(x) < 4:
        return axes, shares
    if method == "umap":
        umap = _umap()
        made = umap.UMAP(n_neighbors=min(15, len(x) - 1), random_state=seed, n_jobs=1)
        return torch.from_numpy(np.asarray(made.fit_transform(x.numpy().astype(np.float32)))), []
    from sklearn.manifold import TSNE  # type: ignore[import-untyped]

    perplexity = min(30.0, (len(x) - 1) / 3)
    placed = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(x.numpy().astype(np.float32))
    return torch.from_numpy(placed), []
