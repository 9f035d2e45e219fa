"""The pytest plugin: the fixture ``disco_registry``. It is loaded in every pytest run, so it imports nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import TestRegistry

__all__ = ["disco_registry"]


@pytest.fixture
def disco_registry() -> Iterator[TestRegistry]:
    """An empty registry in memory that clients use by default while the test runs. See `discoclient.testing`."""
    from .testing import memory_registry

    with memory_registry() as registry:
        yield registry
