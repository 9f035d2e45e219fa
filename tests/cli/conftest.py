"""``disco``, in this process for what needs no process of its own, else as one."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from discoclient.cli import main
from discoclient.control.hub import fresh_hub
from tests.cli.records import Records
from tests.cli.web import Web
from tests.support.processes import Processes, PythonProcess


@dataclass(frozen=True)
class Result:
    """What a run of ``disco`` printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Disco = Callable[..., Result]
StartDisco = Callable[..., PythonProcess]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests reaches the commands."""
    for name in (
        "DISCO_REGISTRY",
        "DISCO_ZONE",
        "DISCO_HOST",
        "DISCO_HOSTNAME",
        "DISCO_LOG",
        "NO_COLOR",
        "FORCE_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def own_hub() -> Iterator[None]:
    """Whatever a test looks at or registers ends with it."""
    with fresh_hub():
        yield


@pytest.fixture
def disco(capfd: pytest.CaptureFixture[str]) -> Iterator[Disco]:
    """Runs ``disco ARGUMENTS`` in this process."""
    logger = logging.getLogger("discoclient")
    handlers, level = logger.handlers, logger.level
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        code = main(arguments)
        return Result(code, *capfd.readouterr())

    yield run
    logger.handlers = handlers
    logger.setLevel(level)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start_disco(processes: Processes) -> StartDisco:
    """Starts ``disco ARGUMENTS`` as a process."""

    def start(*arguments: str, env: dict[str, str] | None = None) -> PythonProcess:
        return processes.python("-m", "discoclient.cli", *arguments, env=env)

    return start


@pytest.fixture
def records(registry_url: str) -> Records:
    """What stands below `registry_url`."""
    return Records(registry_url)


@pytest.fixture
def web() -> Iterator[Web]:
    """A service that runs already."""
    with Web() as running:
        yield running
