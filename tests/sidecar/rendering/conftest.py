"""``disco render`` as a process on a real etcd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discoclient.control.hub import fresh_hub
from tests.cli.records import Records
from tests.support.processes import Processes, PythonProcess

RenderTo = Callable[..., PythonProcess]
EXAMPLES = Path(__file__).parents[3] / "examples" / "render"


@pytest.fixture(autouse=True)
def own_hub() -> Iterator[None]:
    """Whatever a test looks at or registers ends with it."""
    with fresh_hub():
        yield


@pytest.fixture
def records(registry_url: str) -> Records:
    """What stands below `registry_url`."""
    return Records(registry_url)


@pytest.fixture
def disco_render(processes: Processes) -> RenderTo:
    """Starts ``disco --registry URL render ARGUMENTS experiment``."""

    def start(url: str, *arguments: object, env: dict[str, str] | None = None) -> PythonProcess:
        words = [str(each) for each in arguments]
        return processes.python(
            "-m", "discoclient.cli", "--registry", url, "render", *words, "experiment", env=env
        )

    return start
