"""What the tests of the clients share: a registry in memory, real servers, and the three shells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from discoclient import RegistryHandle
from discoclient.control.hub import find_address, hub
from discoclient.testing import TestRegistry
from discoclient.transport.wire import WireOptions
from tests.client.fleet import Fleet
from tests.client.shells import SHELLS, Shell
from tests.support.servers import Servers


@pytest.fixture(params=SHELLS, ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    """Each shell in turn; see `in_every_shell`."""
    found: Shell = request.param
    return found


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the requests where a test does not say it: ``--engine httpcore`` runs all of them over the other one."""
    name: str = request.config.getoption("--engine")
    if name == "httpcore":
        monkeypatch.setattr(WireOptions, "is_native", property(lambda self: self.engine == "native"))
    return name


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's environment says: a test sets the proxies that it is about."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as started:
        yield started


@pytest.fixture
def registry(disco_registry: TestRegistry) -> TestRegistry:
    """The registry in memory that clients use by default."""
    return disco_registry


@pytest.fixture
def handle(registry: TestRegistry) -> Iterator[RegistryHandle]:
    """A look at the registry, and through it at what the process knows of its endpoints."""
    with RegistryHandle(find_address(None), hub(), 5.0, is_caller=True) as looking:
        yield looking


@pytest.fixture
def fleet(servers: Servers, registry: TestRegistry, handle: RegistryHandle) -> Fleet:
    """Servers that are registered as instances of the service ``experiment``."""
    return Fleet(servers, registry, handle)
