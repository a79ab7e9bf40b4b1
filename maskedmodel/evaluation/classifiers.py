"""k-NN and logistic regression on features that are given.

k-NN as DINO made customary (Caron et al. 2021): cosine similarity, the k nearest vote with weight exp(sim / T).
The linear probe is a multinomial logistic regression, convex, so that no learning-rate search decides the result, nor,
within its tolerance, the solver: Newton's method where there are few weights, else L-BFGS.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median_low
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.errors import DataError

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
MAX_ITERATIONS = 2000
FEW_WEIGHTS = 300  # up to which Newton's method, which factors a matrix of so many rows, is the faster one
DRAWS = 3  # of a few labelled samples
HELD_OUT = 0.2  # share of the training part on which C is chosen
_CHUNK = 1 << 25  # similarities at a time


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % interval (Wilson 1927), all in [0, 1]."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, right: int, count: int) -> Accuracy:
        z2 = 1.959963984540054**2
        share = right / count
        centre = (share + z2 / (2 * count)) / (1 + z2 / count)
        half = math.sqrt(z2 * share * (1 - share) / count + z2 * z2 / (4 * count * count)) / (1 + z2 / count)
        return cls(share, max(centre - half, 0.0), min(centre + half, 1.0), count)

    @classmethod
    def over(cls, folds: Sequence[Accuracy]) -> Accuracy:
        """That of all folds together."""
        return cls.of(sum(round(fold.value * fold.count) for fold in folds), sum(fold.count for fold in folds))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Linear:
    """A linear probe's result: accuracy on the test part, the C it chose, and whether the solver converged.

    balanced  mean over classes of the share of their samples that were found, in [0, 1].
    auc       area under the ROC curve, mean over classes, each against the rest; None where the test part lacks one.
    """

    accuracy: Accuracy
    c: float
    converged: bool
    balanced: float | None = None
    auc: float | None = None

    @classmethod
    def over(cls, folds: Sequence[Linear]) -> Linear:
        """That of all folds together; `c` is the median of theirs."""
        accuracy = Accuracy.over([fold.accuracy for fold in folds])
        c, converged = median_low([fold.c for fold in folds]), all(fold.converged for fold in folds)
        if len(folds) > 1:  # a fold of one group rarely has every class
            return cls(accuracy, c, converged)
        return cls(accuracy, c, converged, folds[0].balanced, folds[0].auc)


def knn_predict(train: Tensor, labels: Tensor, test: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """The class (N,) int64 that the k nearest of `train` (N', D) vote for, for each row of `test` (N, D).

    Of equally similar neighbours at the border of k the first in `train` count; of equally strong classes the lowest
    wins. k is at most N'.
    """
    k = min(k, train.shape[0])
    classes, place = torch.unique(labels, return_inverse=True)
    train = F.normalize(train.float(), dim=1)
    predicted = []
    for rows in torch.split(F.normalize(test.float(), dim=1), max(_CHUNK // train.shape[0], 1)):
        similarity = rows @ train.T
        border = similarity.topk(k, dim=1).values[:, -1:]
        nearer, level = similarity > border, similarity == border
        chosen = nearer | (level & (level.cumsum(1) <= k - nearer.sum(1, keepdim=True)))
        ids = chosen.nonzero()[:, 1].reshape(-1, k)
        near = similarity.gather(1, ids)
        # Only ratios of votes matter: the nearest gets weight 1, so that a low temperature can't overflow.
        weight = ((near - near.amax(1, keepdim=True)) / temperature).exp()
        votes = weight.new_zeros(len(rows), len(classes)).scatter_add_(1, place[ids], weight)
        predicted.append(classes[votes.argmax(1)])
    return torch.cat(predicted)


def knn(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int = 20, temperature: float = 0.07
) -> Accuracy:
    """Accuracy of `knn_predict` on the test part."""
    right = knn_predict(train, train_labels, test, k, temperature) == test_labels
    return Accuracy.of(int(right.sum()), len(right))


def hold_out(labels: NDArray[np.int64], seed: int, share: float = HELD_OUT) -> NDArray[np.bool_]:
    """(N,) bool, True = held out: a seeded share of each class, at least one sample where the class has two."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = max(round(share * len(members)), 1) if len(members) > 1 else 0
        held[members[:count]] = True
    return held


@contextmanager
def _quiet() -> Iterator[None]:
    """Whether a solver converged is told by `Regression.fit`. Filters are the process's own: not within a thread."""
    from scipy.linalg import LinAlgWarning  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", LinAlgWarning)  # where a Hessian is singular, L-BFGS takes over
        yield


class Regression:
    """Logistic regression (N, D) to classes (N,), on features standardised by the part that it is fitted to."""

    def __init__(self, features: NDArray[Any], labels: NDArray[np.int64]) -> None:
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

        self.mean = features.mean(0)
        spread = features.std(0)
        # A constant feature says nothing: it becomes zero. The bound is relative, since rounding leaves a spread.
        self.scale = np.where(spread > 1e-6 * np.abs(self.mean) + 1e-12, spread, np.inf)
        # The best weights are a mix of the samples they are fitted to, so no more dimensions than samples are needed.
        self.basis = None
        x = self._standardise(features)
        if x.shape[1] > x.shape[0]:
            self.basis = np.linalg.qr(x.T)[0]
            x = x @ self.basis
        self.x, self.labels = x, labels
        classes = len(np.unique(labels))
        weights = x.shape[1] * (classes if classes > 2 else 1)
        # Fewer samples than features are fitted at once either way, and keep the solver of earlier figures.
        solver = "newton-cholesky" if weights <= FEW_WEIGHTS and self.basis is None else "lbfgs"
        self.model = LogisticRegression(solver=solver, max_iter=MAX_ITERATIONS, warm_start=True)

    def _standardise(self, features: NDArray[Any]) -> NDArray[Any]:
        standardised = np.asarray((features - self.mean) / self.scale)
        return standardised if self.basis is None else standardised @ self.basis

    def fit(self, c: float) -> bool:
        """Fit at strength 1 / c, starting from the fit before; whether the solver converged."""
        self.model.set_params(C=c)
        self.model.fit(self.x, self.labels)
        return bool(np.max(self.model.n_iter_) < MAX_ITERATIONS)

    def right(self, features: NDArray[Any], labels: NDArray[np.int64]) -> int:
        return int((self.model.predict(self._standardise(features)) == labels).sum())

    def balanced(self, features: NDArray[Any], labels: NDArray[np.int64]) -> float:
        predicted = self.model.predict(self._standardise(features))
        return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))

    def auc(self, features: NDArray[Any], labels: NDArray[np.int64]) -> float | None:
        from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

        if set(labels.tolist()) != set(self.model.classes_.tolist()):
            return None
        likely = self.model.predict_proba(self._standardise(features))
        if likely.shape[1] == 2:
            return float(roc_auc_score(labels, likely[:, 1]))
        return float(roc_auc_score(labels, likely, multi_class="ovr", average="macro", labels=self.model.classes_))


def few_rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Indices of `count` samples, the classes in turn and each class in a seeded order: more hold all of fewer."""
    generator = np.random.default_rng(seed)
    queues = [list(generator.permutation(np.flatnonzero(labels == label))) for label in np.unique(labels)]
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return np.array(turns[:count], dtype=np.int64)


def few(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, count: int, *, seed: int = 0) -> float:
    """Accuracy on the test part of logistic regression (C = 1) on `count` labelled samples, mean of three draws.

    Features are standardised by those samples alone. Nothing is chosen, so nothing but them is needed.
    """
    x, y, z, w = train.double().numpy(), train_labels.numpy(), test.double().numpy(), test_labels.numpy()
    right = 0
    with _quiet():
        for draw in range(DRAWS):
            rows = few_rows(y, count, seed * DRAWS + draw)
            fitted = Regression(x[rows], y[rows])
            fitted.fit(1.0)
            right += fitted.right(z, w)
    return right / (DRAWS * len(w))


def linear(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, seed: int = 0) -> Linear:
    """Multinomial logistic regression on standardised features.

    C is chosen on a fifth of the training part, held out by class and seed; of equally good ones the smallest, which
    regularises most. The probe is then fitted to the whole training part. The test part chooses nothing.

    Raises DataError where the training part has a single class, or no class with two samples.
    """
    with _quiet():
        return _linear(train, train_labels, test, test_labels, seed)


def at_a_time(folds: int) -> int:
    """How many folds are fitted side by side."""
    return max(min(torch.get_num_threads(), folds), 1)


def linear_over(
    features: Tensor, labels: Tensor, folds: Sequence[tuple[Tensor, Tensor]], *, seed: int = 0
) -> Generator[Linear, None, None]:
    """`linear` on each fold, rows to fit to and rows to test on, in order.

    Folds are fitted side by side, one thread each: products of this size gain next to nothing from several threads, and
    so the result doesn't depend on how many there are. No fold starts from another one's weights, which have seen what
    it is tested on.
    """
    if len(folds) == 1:
        ((a, b),) = folds
        yield linear(features[a], labels[a], features[b], labels[b], seed=seed)
        return
    from threadpoolctl import threadpool_limits  # type: ignore[import-not-found,import-untyped,unused-ignore]

    def fitted(rows: Tensor, rest: Tensor) -> Linear:
        return _linear(features[rows], labels[rows], features[rest], labels[rest], seed)

    with _quiet(), threadpool_limits(1, "blas"), ThreadPoolExecutor(at_a_time(len(folds))) as pool:
        jobs = [pool.submit(fitted, *fold) for fold in folds]
        try:
            for job in jobs:
                yield job.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _linear(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, seed: int) -> Linear:
    x, y = train.double().numpy(), train_labels.numpy()
    if len(np.unique(y)) < 2:
        raise DataError("A linear probe needs 2 classes or more to tell apart.", got=f"{len(np.unique(y))} class")
    held = hold_out(y, seed)
    if not held.any() or len(np.unique(y[~held])) < 2:
        raise DataError(
            "There are too few labelled samples for a linear probe.",
            expected="2 classes or more, of which one has 2 samples or more",
            got=f"{len(y)} samples of {len(np.unique(y))} classes",
        )
    search = Regression(x[~held], y[~held])
    scores = []
    for c in C_GRID:
        search.fit(c)
        scores.append(search.right(x[held], y[held]))
    c = C_GRID[int(np.argmax(scores))]
    final = Regression(x, y)
    converged = final.fit(c)
    z, w = test.double().numpy(), test_labels.numpy()
    return Linear(Accuracy.of(final.right(z, w), len(w)), c, converged, final.balanced(z, w), final.auc(z, w))
