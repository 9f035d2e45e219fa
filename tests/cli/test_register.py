"""``disco register``: registered when it is well, marked when it is not, taken out in the end."""

import signal
import socket
from itertools import groupby
from typing import Any

import pytest

from discoclient import State
from discoclient.cli import watchover
from discoclient.cli.looking import Look
from discoclient.control.hub import find_address
from discoclient.dev import EtcdCluster
from discoclient.registry.codec import decode
from discoclient.serving.health import Health
from discoclient.serving.prober import Prober
from tests.cli.conftest import Disco, StartDisco
from tests.cli.records import Records
from tests.cli.web import Web
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import PythonProcess

SLOW = 30.0
"""Seconds that a busy machine may take for what takes it a moment."""
FAILURES = 5


@pytest.fixture
def registered(start_disco: StartDisco, records: Records, web: Web) -> PythonProcess:
    """``disco register experiment`` with every option, for a `web` that is not well yet."""
    web.health = 503
    options = (
        "--port", str(web.port), "--health-path", "/health", "--health-interval", "0.05", "--health-failures",
        str(FAILURES), "--version", "2.4.1", "--weight", "50", "--zone", "eu-west-1a", "--host", "127.0.0.1",
        "--hostname", "web-3", "--slot", "7", "--ttl", "9", "--http-keepalive", "4.5", "--metadata", "team=red",
        "--metadata", "note=a=b", "--scheme", "http", "--quiet", "0.3",
    )  # fmt: skip
    return start_disco("--registry", records.url, "register", "experiment", *options)


def test_a_service_is_registered_when_it_is_well_marked_when_it_is_not_and_taken_out_in_the_end(
    registered: PythonProcess, records: Records, web: Web, etcd: EtcdCluster
) -> None:
    with Look(find_address(records.url), "experiment") as look:
        assert look.first().by_key == {}
        eventually(lambda: web.probes >= 3, timeout=SLOW)
        assert records.entries("experiment") == ()

        web.health = 204
        line = registered.wait_for_line("registered experiment ", timeout=SLOW)
        (entry,) = records.entries("experiment")
        found = decode(entry.value, service="experiment", id=entry.key.rpartition("/")[2])
        assert line == f"registered experiment {found.id} at 127.0.0.1:{web.port}"
        assert (found.host, found.port, found.scheme, found.version) == (
            "127.0.0.1",
            web.port,
            "http",
            "2.4.1",
        )
        assert (found.weight, found.zone, found.hostname, found.slot) == (50, "eu-west-1a", "web-3", "7")
        assert found.metadata == {"team": "red", "note": "a=b"}
        assert (found.http_keepalive, found.pid) == (4.5, registered.pid)
        assert b'"weight":50,' in entry.value
        assert "granted with TTL(9s)" in etcd.etcdctl("lease", "timetolive", f"{entry.lease:x}")

        before = web.probes
        web.health = 500
        line = registered.wait_for_line("unready", timeout=SLOW)
        assert line == f"unready: GET http://127.0.0.1:{web.port}/health answered 500"
        assert web.probes - before >= FAILURES
        web.health = 200
        registered.wait_for_line("ready again", timeout=SLOW)

        etcd.etcdctl("lease", "revoke", f"{entry.lease:x}")
        eventually(lambda: "disco: registered again" in registered.errors, timeout=SLOW)

        registered.signal(signal.SIGTERM)
        assert registered.wait(timeout=SLOW) == 0
        assert registered.output.splitlines()[-2:] == ["draining", "gone"]
        assert records.entries("experiment") == ()

        states: list[list[str]] = []
        while (seen := look.next(timeout=1.0)) is not None:
            states.append([str(each.state) for each in seen.by_key.values()])
    # The revoked lease takes the key away for a moment, which need not be seen for itself.
    told = [state for state, _ in groupby(state for (state,) in filter(None, states))]
    assert told == ["ready", "unready", "ready", "draining"]
    assert states[-1] == []


def test_every_option_counts(disco: Disco, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process above shows by what it does, and here also those whose effect would take time to see."""
    told: dict[str, object] = {}

    class Recorder:
        def __init__(
            self, service: str, port: int, options: dict[str, object], *, ready_timeout: float
        ) -> None:
            told.update(options, service=service, port=port, ready_timeout=ready_timeout)

        def run(self, probe: object, health: Health, *, interval: float, timeout: float) -> int:
            flips = [health.record(problem) for problem in (None, "1", "2", "3", "4")]
            told.update(
                interval=interval, timeout=timeout, failures=flips.index(True, 1) if True in flips[1:] else 0
            )
            return 0

    monkeypatch.setattr("discoclient.cli.register.Watchover", Recorder)
    command = ("--registry", records.url, "register", "ledger", "--port", "81")
    assert disco(*command).code == 0
    defaults = dict(told)
    assert defaults == {
        "service": "ledger", "port": 81, "registry": records.url, "host": "127.0.0.1", "scheme": "http",
        "version": None, "zone": None, "weight": 100, "hostname": None, "slot": "0", "ttl": 15.0,
        "http_keepalive": None, "metadata": {}, "quiet": 1.0, "drain_timeout": 20.0,
        "interval": 2.0, "timeout": 1.0, "failures": 3, "ready_timeout": 60.0,
    }  # fmt: skip
    for options, field, value in [
        (["--health-interval", "7"], "interval", 7.0),
        (["--health-timeout", "7"], "timeout", 7.0),
        (["--health-failures", "4"], "failures", 4),
        (["--ready-timeout", "7"], "ready_timeout", 7.0),
        (["--version", "7"], "version", "7"),
        (["--weight", "7.5"], "weight", 7.5),
        (["--zone", "z"], "zone", "z"),
        (["--host", "10.0.0.7"], "host", "10.0.0.7"),
        (["--hostname", "web-7"], "hostname", "web-7"),
        (["--slot", "7"], "slot", "7"),
        (["--ttl", "7"], "ttl", 7.0),
        (["--http-keepalive", "7"], "http_keepalive", 7.0),
        (["--metadata", "a=b=c", "--metadata", "d="], "metadata", {"a": "b=c", "d": ""}),
        (["--scheme", "https"], "scheme", "https"),
        (["--quiet", "0"], "quiet", 0.0),
        (["--drain-timeout", "7"], "drain_timeout", 7.0),
    ]:
        told.clear()
        assert disco(*command, *options).code == 0
        assert told == defaults | {field: value}
    monkeypatch.setenv("DISCO_HOST", "10.0.0.8")
    assert disco(*command).code == 0
    assert told["host"] == "10.0.0.8"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], "no connection to {}: connection refused"),
        (["--health-path", "/well"], "GET http://{}/well failed: connection refused"),
        (["--health-path", "/", "--scheme", "https"], "GET https://{}/ failed: connection refused"),
        (["--scheme", "https"], "no connection to {}: connection refused"),
    ],
)
def test_the_probe_asks_for_the_path_in_what_the_service_speaks(
    disco: Disco, records: Records, options: list[str], asked: str
) -> None:
    port = str(free_port())
    command = ("register", "ledger", "--port", port, "--host", "127.0.0.1", "--ready-timeout", "0.3")
    result = disco("--registry", records.url, *command, *options)
    assert result.code == 3
    assert asked.format(f"127.0.0.1:{port}") in result.err


def test_a_host_s_name_is_taken_where_the_registry_s_url_admits_them(disco: Disco, records: Records) -> None:
    """It is refused before anything is probed; where it is not, the probe finds that nobody listens at that name."""
    port = str(free_port())
    command = ("register", "ledger", "--port", port, "--host", "localhost", "--ready-timeout", "0.3")
    lenient = disco("--registry", f"{records.url}?hostnames=1", *command)
    assert lenient.code == 3
    assert f"no connection to localhost:{port}" in lenient.err
    strict = disco("--registry", records.url, *command)
    assert strict.code == 2
    assert "host is not an IP address" in strict.err


def test_a_port_that_refuses_makes_it_unready_and_leaves_it_registered(
    start_disco: StartDisco, records: Records, web: Web
) -> None:
    """And a Ctrl-C while it drains skips the rest of the quiet, which is a minute here."""
    registered = start_disco(
        "--registry", records.url, "register", "experiment", "--port", str(web.port), "--health-interval", "0.05",
        "--health-failures", "2", "--quiet", "60",
    )  # fmt: skip
    registered.wait_for_line("registered experiment ", timeout=SLOW)
    (entry,) = records.entries("experiment")
    eventually(lambda: records.states("experiment") == [State.READY], timeout=SLOW)
    web.close()
    line = registered.wait_for_line("unready", timeout=SLOW)
    assert line == f"unready: no connection to 127.0.0.1:{web.port}: connection refused"
    eventually(lambda: records.states("experiment") == [State.UNREADY], timeout=SLOW)

    registered.signal(signal.SIGINT)
    eventually(lambda: records.states("experiment") == [State.DRAINING], timeout=SLOW)
    assert [each.key for each in records.entries("experiment")] == [entry.key]
    assert registered.is_running
    registered.signal(signal.SIGINT)
    assert registered.wait(timeout=SLOW) == 0
    assert registered.errors == ""
    assert records.entries("experiment") == ()


def test_nobody_there_within_the_ready_timeout_is_exit_code_3(disco: Disco, records: Records) -> None:
    port = str(free_port())
    result = disco("--registry", records.url, "register", "ledger", "--port", port, "--ready-timeout", "0.3")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"disco: ledger was not well within 0.3 s: no connection to 127.0.0.1:{port}: connection refused\n"
    )
    assert records.entries("ledger") == ()


def test_a_probe_that_gets_no_answer_fails_after_its_timeout(
    disco: Disco, records: Records, web: Web
) -> None:
    options = ("--health-path", "/hang", "--health-timeout", "0.15", "--ready-timeout", "0.6")
    result = disco("--registry", records.url, "register", "experiment", "--port", str(web.port), *options)
    assert result.code == 3
    assert result.err == "disco: experiment was not well within 0.6 s: no answer within 0.15 s\n"


def test_it_is_probed_as_often_as_was_said_and_each_time_for_so_long(
    disco: Disco, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, float]] = []

    class Recorder(Prober):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            told.append((self._interval, self._timeout))

    monkeypatch.setattr(watchover, "Prober", Recorder)
    command = ("register", "ledger", "--port", str(free_port()), "--ready-timeout", "0.05")
    for options in ((), ("--health-interval", "7", "--health-timeout", "3")):
        assert disco("--registry", records.url, *command, *options).code == 3
    assert told == [(2.0, 1.0), (7.0, 3.0)]


def test_the_address_is_probed_that_callers_will_use(disco: Disco, records: Records) -> None:
    """What listens on 127.0.0.1 alone is of no use to callers elsewhere, however well it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        options = ("--port", port, "--host", "127.0.0.2", "--ready-timeout", "0.3")
        result = disco("--registry", records.url, "register", "experiment", *options)
    assert result.code == 3
    assert f"no connection to 127.0.0.2:{port}" in result.err


def test_a_registry_that_can_not_be_reached_at_the_start_is_exit_code_4(
    disco: Disco, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchover, "REGISTER_TIMEOUT", 0.5)
    url = f"etcd://127.0.0.1:{free_port()}"
    result = disco("--registry", url, "register", "experiment", "--port", str(web.port))
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("disco: could not register within 0.5 s: ")
    assert result.err.count("\n") == 1
