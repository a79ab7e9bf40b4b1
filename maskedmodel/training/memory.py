"""As much at once as memory holds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from maskedmodel.errors import DataError, out_of_memory

T = TypeVar("T")
log = logging.getLogger("maskedmodel")


class Fitting:
    """Calls functions of some rows of a batch on as many at once as memory holds: half as many each time it runs out.

    For what is computed row by row, so that in smaller parts it is the same but for rounding. That fewer are taken is
    told, and stays so for the calls that follow. Raises DataError where one row is too much; `what` says of what.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.most: int | None = None  # None: as many as a batch has

    def __call__(self, function: Callable[[slice], T], rows: int) -> list[T]:
        """The function of all rows, part by part."""
        while True:
            size = rows if self.most is None else min(self.most, rows)
            try:
                return [function(slice(at, at + size)) for at in range(0, rows, max(size, 1))]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if size <= 1:
                    raise DataError(
                        f"There isn't enough memory for {self.what} of one sample.",
                        got=" ".join(str(error).split())[:160] or type(error).__name__,
                        fix="Take a smaller model, shorter samples, or a machine with more memory.",
                    ) from error
            self.most = math.ceil(size / 2)  # outside the handler, whose traceback would hold on to what is to be freed
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("Out of memory: going on with %d samples at a time.", self.most)
