"""A stage for ``disco run``, and what stands in the registry beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient import DiscoClient
from discoclient.control.hub import fresh_hub
from discoclient.dev import EtcdCluster
from tests.cli.conftest import Disco, clean_environment, disco
from tests.running.keys import Keys
from tests.running.stage import Stage
from tests.support.processes import Processes

__all__ = ["Disco", "clean_environment", "disco"]


@pytest.fixture(autouse=True)
def own_hub() -> Iterator[None]:
    """Whatever a test calls in this process ends with it."""
    with fresh_hub():
        yield


@pytest.fixture
def keys(etcd: EtcdCluster, registry_url: str) -> Keys:
    return Keys(etcd, registry_url)


@pytest.fixture
def stage(processes: Processes, tmp_path: Path, keys: Keys, registry_url: str) -> Iterator[Stage]:
    started = Stage(processes, tmp_path, keys, registry_url)
    yield started
    started.close()


@pytest.fixture
def caller(registry_url: str) -> Iterator[DiscoClient]:
    """An SDK caller in this process, which has not called yet."""
    with DiscoClient("experiment", registry=registry_url, timeout=30.0) as client:
        yield client
