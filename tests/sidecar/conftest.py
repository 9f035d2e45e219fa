"""One sidecar for each file of tests, before instances that keep every byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .stage import Stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A sidecar with default settings. A test leaves it as it was: alive, and with nothing under way."""
    with Stage() as stage:
        yield stage
