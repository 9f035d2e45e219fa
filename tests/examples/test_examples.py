"""Every example runs as its first lines say, against a real etcd, and prints what examples/README.md says it prints."""

from __future__ import annotations

import ast
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from discoclient import DiscoClient, connect
from discoclient.control.hub import fresh_hub
from examples.service_http_server import Hello
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess

FOLDER = Path(__file__).parents[2] / "examples"
SERVES = re.compile(r"(\d+) serves '([a-z]+)' at (127\.0\.0\.1:\d+)")
ANSWERED = re.compile(r"/users/\d+ answered by (\d+) \(instance (127\.0\.0\.1:\d+)[,)]")


class Examples:
    """Runs examples on a registry of the test's own, and kills what is left of them."""

    def __init__(self, processes: Processes, registry: str) -> None:
        self._processes = processes
        self._env = {"DISCO_REGISTRY": registry}
        self._started: list[PythonProcess] = []
        self.registry = registry

    def start(self, name: str, *words: str) -> PythonProcess:
        process = self._processes.python(FOLDER / f"{name}.py", *words, env=self._env)
        self._started.append(process)
        return process

    def serve(self, *commands: str) -> list[tuple[PythonProcess, str]]:
        """An instance for each command (an example and its arguments), registered, with its address."""
        started = [(self.start(*command.split()), command.split()[1:]) for command in commands]
        return [(process, self._address(process, *words)) for process, words in started]

    def output(self, name: str, *words: str) -> list[str]:
        """What it prints, if it ends well."""
        process = self.start(name, *words)
        assert process.wait(timeout=40) == 0, process.errors
        assert process.errors == ""
        return process.output.splitlines()

    def kill(self) -> None:
        for process in self._started:
            process.kill()

    @staticmethod
    def _address(process: PythonProcess, service: str = "experiment") -> str:
        said = SERVES.fullmatch(process.wait_for_line("serves", timeout=30))
        assert said is not None
        assert said[2] == service
        return said[3]


@pytest.fixture
def examples(processes: Processes, registry_url: str) -> Iterator[Examples]:
    started = Examples(processes, registry_url)
    yield started
    started.kill()  # how they leave has a test of its own, and takes its second each time


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("service_http_server", signal.SIGTERM),
        ("service_starlette", signal.SIGTERM),
        ("service_starlette", signal.SIGINT),
    ],
    ids=str,
)
def test_a_service_registers_once_it_answers_and_leaves_before_it_stops(
    examples: Examples, name: str, number: signal.Signals
) -> None:
    ((process, address),) = examples.serve(name)
    with fresh_hub(), connect(examples.registry) as registry:
        (instance,) = registry.instances("experiment")
        assert (instance.address, str(instance.state), instance.http_keepalive) == (address, "ready", 30)
        with DiscoClient("experiment", registry=f"static://experiment={address}") as unaware:
            assert "/users/1 answered by" in unaware.get("/users/1").text
            process.signal(number)
            process.wait_for_line("leaving", timeout=20)
            eventually(
                lambda: [i.state for i in registry.instances("experiment")] == ["draining"], timeout=10
            )
            # It drains, and whoever has not heard of it yet is still answered.
            assert unaware.get("/users/1").status_code == 200
        eventually(lambda: registry.instances("experiment") == [], timeout=10)
    assert process.wait(timeout=20) in (0, -number), process.errors
    assert process.errors == ""


def test_the_plain_service_answers_on_a_kept_connection_without_a_delayed_acknowledgement() -> None:
    class Naive(Hello):
        """The negative control: as one writes it, and as it would be without the example's three lines."""

        wbufsize = 0
        disable_nagle_algorithm = False

    assert quickest_answer(Hello) < 0.03
    assert quickest_answer(Naive) > 0.03


def quickest_answer(handler: type[BaseHTTPRequestHandler]) -> float:
    """Seconds. The 40 ms come with *every* answer but the first, so the best of some shows them on a busy machine, too."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        connection = HTTPConnection("127.0.0.1", server.server_port)
        try:
            took = []
            for _ in range(10):
                began = time.monotonic()
                connection.request("GET", "/")
                assert connection.getresponse().read()
                took.append(time.monotonic() - began)
        finally:
            connection.close()
            server.shutdown()
            thread.join()
    return min(took[2:])


def test_the_sync_caller_is_answered_by_both_and_goes_on_when_one_is_killed(examples: Examples) -> None:
    (victim, dead), (_, survivor) = examples.serve("service_http_server", "service_starlette")
    caller = examples.start("caller_sync", "80", "0.02")
    caller.wait_for_line(dead, timeout=30)
    victim.kill()
    assert caller.wait(timeout=40) == 0, caller.errors
    lines = caller.output.splitlines()
    answered = [ANSWERED.match(line) for line in lines]
    assert len(lines) == 80
    assert all(answered), lines
    assert {found[2] for found in answered if found} == {dead, survivor}
    assert survivor in lines[-1]


def test_the_sync_caller_says_when_nobody_is_there(examples: Examples) -> None:
    lines = examples.output("caller_sync", "1", "0")
    assert len(lines) == 1
    assert lines[0].startswith("service 'experiment' has no instance to call")


def test_the_async_caller_is_answered_in_fair_shares(examples: Examples) -> None:
    served = examples.serve("service_starlette", "service_starlette")
    shares = Counter[str]()
    for line in examples.output("caller_async", "200"):
        address, _, count, _, total = line.split()
        shares[address] = int(count)
        assert total == "200"
    assert set(shares) == {address for _, address in served}
    assert shares.total() == 200
    assert min(shares.values()) >= 40


def test_many_services_are_called_through_one_client(examples: Examples) -> None:
    (_, experiment), (_, ledger) = examples.serve("service_http_server", "service_http_server ledger")
    one, other, *nobody = examples.output("many_services")
    assert one.startswith("disco://experiment/users/1: /users/1 answered by ")
    assert one.endswith(f"(an instance of 'experiment' at {experiment})")
    assert other.startswith("disco://ledger/accounts?of=1: /accounts?of=1 answered by ")
    assert other.endswith(f"(an instance of 'ledger' at {ledger})")
    assert nobody == ["disco://nobody/: NoInstances"]


def test_streams_go_both_ways(examples: Examples) -> None:
    examples.serve("service_starlette streams")
    *counted, sent = examples.output("streaming")
    times = [float(line.split()[0]) for line in counted]
    assert [line.split()[-1] for line in counted] == ["1", "2", "3", "4", "5"]
    assert times[-1] - times[0] >= 0.3  # as it came, and not all at the end
    assert sent == "sent 10485760 bytes, and 10485760 arrived"


def test_the_custom_balancer_prefers_the_eldest_and_then_the_next(examples: Examples) -> None:
    ((eldest, first),) = examples.serve("service_http_server")
    born = int(time.time())
    eventually(lambda: int(time.time()) > born)  # the records have whole seconds, and tell who is elder
    ((_, second),) = examples.serve("service_http_server")
    caller = examples.start("custom_balancer", "10")
    caller.wait_for_line(first, timeout=30)
    caller.wait_for_line(first)
    eldest.kill()
    assert caller.wait(timeout=40) == 0, caller.errors
    addresses = [line.split()[2].rstrip(",") for line in caller.output.splitlines()]
    switch = addresses.index(second)
    assert switch >= 2
    assert addresses == [first] * switch + [second] * (10 - switch)


def test_every_example_is_in_the_readme_and_here() -> None:
    names = {path.name for path in FOLDER.glob("*.py")}
    assert set(re.findall(r"\]\((\w+\.py)\)", (FOLDER / "README.md").read_text())) == names
    mine = Path(__file__).read_text()
    assert all(re.search(rf'"{name.removesuffix(".py")}[" ]', mine) for name in names)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_the_first_lines_say_how_to_run_it(path: Path) -> None:
    head = ast.get_docstring(ast.parse(path.read_text())) or ""
    commands = [line.strip() for line in head.splitlines() if line.startswith("    ")]
    assert commands[0].startswith("disco dev --nodes 1 --port 2379 ")
    assert any(f"python examples/{path.name}" in command for command in commands)
    mentioned = re.findall(r"python (examples/\w+\.py)", head)
    assert all((FOLDER.parent / name).is_file() for name in mentioned)
