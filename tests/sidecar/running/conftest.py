"""Servers to call, and sidecars that call them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.sidecar.running.starting import Starter
from tests.support.processes import Processes
from tests.support.servers import HttpServer, Servers

USED = ("DISCO_REGISTRY", "DISCO_ZONE", "DISCO_LOG", "NOTIFY_SOCKET")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DISCO_SIDECAR_", "LISTEN_")) or name in USED:
            monkeypatch.delenv(name)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as started:
        yield started


@pytest.fixture
def server(servers: Servers) -> HttpServer:
    """The one instance of ``experiment``."""
    return servers.start()


@pytest.fixture
def registry(server: HttpServer) -> str:
    return f"static://experiment={server.address}"


@pytest.fixture
def start(processes: Processes, registry: str) -> Iterator[Starter]:
    with Starter(processes, registry) as starter:
        yield starter
