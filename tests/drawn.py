"""What tests with examples drawn at random share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import HealthCheck, settings


def examples(count: int) -> settings:
    """That many examples, however long each takes."""
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


BOUNDED, LONG = examples(60), examples(3000)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example: a fixture's would be shared by all of a test."""
    path = Path(mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)
