"""Stopping, dying and starting again: what is in flight finishes, and nobody is refused while one process follows another."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from discoclient.system.ports import pick_ports
from discoclient.system.process import end, spawn
from tests.support.eventually import eventually

from .origin import Exchange, Origin
from .stage import Held, Sidecar, fixed
from .wire import Client, ask, get

ROOT = Path(__file__).parents[2]


class Clients:
    """Several clients in threads: each request on a connection of its own, or all on one that is kept. Failures are collected.

    A kept connection that was closed between two requests is opened again without a word, as every HTTP client does.
    """

    def __init__(self, sidecar: Sidecar, *, keep: bool = False, count: int = 3) -> None:
        self.failures: list[str] = []
        self.successes = 0
        self._sidecar = sidecar
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep if keep else self._renew, daemon=True) for _ in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10.0)

    def wait_for(self, more: int) -> None:
        """Until *more* requests have succeeded, or one has failed."""
        wanted = self.successes + more
        eventually(lambda: self.successes >= wanted or self.failures, what=f"{more} more requests")

    def _renew(self) -> None:
        while not self._stopping.is_set():
            try:
                status = ask(self._sidecar.address, get("/experiment/x", "Connection: close")).status
            except OSError as error:
                self._note(repr(error))
            else:
                self._note("" if status == 200 else str(status))

    def _keep(self) -> None:
        connection = http.client.HTTPConnection("localhost", self._sidecar.port, timeout=5.0)
        with contextlib.closing(connection):
            while not self._stopping.is_set():
                is_fresh = connection.sock is None
                try:
                    connection.request("GET", "/experiment/x")
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    if is_fresh:
                        self._note(repr(error))
                else:
                    self._note("" if answer.status == 200 else str(answer.status))

    def _note(self, failure: str) -> None:
        if failure:
            self.failures.append(failure)
            self._stopping.wait(0.01)
        else:
            self.successes += 1


class Notified:
    """A socket like the one that systemd listens on."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sc-")
        self.path = str(Path(self._folder.name) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(15.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._folder.cleanup()

    def wait_for(self, word: str) -> None:
        while word not in self._socket.recv(4096).decode():
            pass


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.mark.parametrize("keep", [False, True], ids=["new connections", "kept connections"])
def test_a_restart_under_load_fails_no_request(origin: Origin, keep: bool) -> None:
    registry = fixed(experiment=[origin])
    with Sidecar(registry) as old, Clients(old, keep=keep) as clients, Notified() as notified:
        clients.wait_for(100)
        with Sidecar(registry, like=old, env={"NOTIFY_SOCKET": notified.path}, wait=False) as new:
            notified.wait_for("READY=1")
            clients.wait_for(100)
            old.terminate()
            assert old.process.wait(timeout=10.0) == 0
            clients.wait_for(200)
            clients.stop()
            assert new.process.is_running
    assert clients.failures == []


def test_the_unix_socket_and_the_ports_of_services_are_taken_over_too(origin: Origin) -> None:
    registry = fixed(experiment=[origin])
    with (
        Sidecar(registry) as old,
        Notified() as notified,
        Sidecar(registry, like=old, env={"NOTIFY_SOCKET": notified.path}, wait=False) as new,
    ):
        notified.wait_for("READY=1")
        old.terminate()
        assert old.process.wait(timeout=10.0) == 0
        for address in (new.address, new.listening, new.unix, ("::1", new.service_port)):
            assert ask(address, get("/experiment/x", "Connection: close")).status == 200
        assert new.page("/readyz").status == 200


def test_control_without_a_new_process_the_end_of_the_old_one_is_noticed(origin: Origin) -> None:
    with Sidecar(fixed(experiment=[origin])) as old, Clients(old) as clients:
        clients.wait_for(50)
        old.terminate()
        assert old.process.wait(timeout=10.0) == 0
        eventually(lambda: clients.failures, what="somebody is refused")


def test_what_is_in_flight_at_the_end_is_finished(origin: Origin) -> None:
    held = Held(origin, "/in-flight")
    with Sidecar(fixed(experiment=[origin])) as sidecar, Client(sidecar.address) as client:
        client.send(get("/experiment/in-flight"))
        assert held.reached.wait(5.0)
        sidecar.terminate()

        def is_refused() -> bool:
            try:
                Client(sidecar.address).close()
            except OSError:
                return True
            return False

        eventually(is_refused, what="no new connections")
        assert not client.has_data()
        held.release.set()
        answer = client.reply()
        assert (answer.status, answer.body, answer.says_close) == (200, b"late", True)
        assert client.is_closed()
        assert sidecar.process.wait(timeout=5.0) == 0


def test_readiness_goes_before_the_end(origin: Origin) -> None:
    """Who looks at it during the last requests must not be sent there."""
    held = Held(origin, "/last")
    with Sidecar(fixed(experiment=[origin])) as sidecar, Client(sidecar.address) as client:
        client.send(get("/experiment/last"))
        assert held.reached.wait(5.0)
        sidecar.terminate()

        def is_unready() -> bool:
            try:
                return sidecar.page("/readyz").status == 503
            except OSError:
                return True

        eventually(is_unready, what="not ready any more")
        held.release.set()
        assert client.reply().status == 200


def test_an_idle_connection_does_not_hold_up_the_end(origin: Origin) -> None:
    with Sidecar(fixed(experiment=[origin])) as sidecar, Client(sidecar.address) as client:
        assert client.send(get("/experiment/x")).reply().status == 200
        began = time.monotonic()
        sidecar.terminate()
        assert client.is_closed()
        assert sidecar.process.wait(timeout=5.0) == 0
        assert time.monotonic() - began < 4.0


def test_what_does_not_end_is_ended_after_the_drains_time(origin: Origin) -> None:
    held = Held(origin, "/endless")
    with (
        Sidecar(fixed(experiment=[origin]), settings={"drain_timeout": 0.5}) as sidecar,
        Client(sidecar.address) as client,
    ):
        client.send(get("/experiment/endless"))
        assert held.reached.wait(5.0)
        sidecar.terminate()
        sidecar.process.wait(timeout=5.0)
        assert held.gone.wait(1.0)


def _accepts(sidecar: Sidecar) -> bool:
    try:
        Client(sidecar.address).close()
    except OSError:
        return False
    return True


def test_after_a_kill_9_the_next_one_takes_the_addresses(origin: Origin) -> None:
    """P1. The times are those of an idle machine, doubled: an interpreter has to start."""
    registry = fixed(experiment=[origin])
    with Sidecar(registry) as old:
        assert ask(old.unix, get("/x")).status == 200
        old.process.kill()
        with pytest.raises(OSError):
            ask(old.address, get("/experiment/x"))
        began = time.monotonic()
        with Sidecar(registry, like=old, wait=False) as new:
            eventually(lambda: _accepts(new), timeout=4.0, what="it listens again")
            assert ask(new.address, get("/experiment/x")).status == 200
            assert time.monotonic() - began < 5.0
            assert ask(new.unix, get("/x")).status == 200, "the socket's file was left behind"


def test_sockets_that_were_handed_over_are_used(origin: Origin) -> None:
    """``LISTEN_FDS``, as systemd does it: the socket exists before the process does."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Client(listener.getsockname()) as early:
        early.send(get("/experiment/early"))
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        port = listener.getsockname()[1]
        (admin,) = pick_ports(1)
        command = [
            sys.executable,
            "-m",
            "disco_sidecar",
            "--bind",
            f"127.0.0.1:{port}",
            "--admin",
            f"127.0.0.1:{admin}",
        ]
        env = os.environ | {"PYTHONPATH": path, "DISCO_REGISTRY": fixed(experiment=[origin])}
        process = spawn(command, env=env, listener=listener.fileno())
        try:
            early.socket.settimeout(15.0)
            assert early.reply().status == 200
        finally:
            assert end(process, grace=5.0) == 0


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(origin: Origin) -> None:
    with (
        Notified() as notified,
        Sidecar(fixed(experiment=[origin]), env={"NOTIFY_SOCKET": notified.path}) as sidecar,
    ):
        notified.wait_for("READY=1")
        sidecar.terminate()
        notified.wait_for("STOPPING=1")
        assert sidecar.process.wait(timeout=5.0) == 0


def test_several_workers_share_the_addresses_and_end_together(origin: Origin) -> None:
    with Sidecar(fixed(experiment=[origin]), "--workers", "2") as sidecar:
        for _ in range(40):
            assert ask(sidecar.address, get("/experiment/x", "Connection: close")).status == 200
        children = sidecar.children()
        assert children
        sidecar.terminate()
        assert sidecar.process.wait(timeout=10.0) == 0
        eventually(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), what="the workers are gone"
        )


def test_a_worker_that_is_killed_is_replaced_or_takes_all_with_it(origin: Origin) -> None:
    """A supervisor must see a dead proxy; half a proxy that nobody notices is the worst."""
    with Sidecar(fixed(experiment=[origin]), "--workers", "2") as sidecar:
        os.kill(sidecar.children()[-1], signal.SIGKILL)

        def is_well() -> bool:
            if not sidecar.process.is_running:
                return True
            return all(
                ask(sidecar.address, get("/experiment/x", "Connection: close")).status == 200
                for _ in range(20)
            )

        eventually(is_well, timeout=10.0, what="all is well again, or all is over")


def test_a_stream_that_runs_during_a_restart_is_not_cut(origin: Origin) -> None:
    go_on = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcd")
        assert go_on.wait(20.0)
        exchange.send(b"efgh")

    origin.on("/stream", answer)
    registry = fixed(experiment=[origin])
    with Sidecar(registry) as old, Client(old.address) as client, Notified() as notified:
        client.send(get("/experiment/stream")).until(b"abcd")
        with Sidecar(registry, like=old, env={"NOTIFY_SOCKET": notified.path}, wait=False):
            notified.wait_for("READY=1")
            old.terminate()
            eventually(lambda: old.process.is_running, what="the old one still has a stream to finish")
            go_on.set()
            assert client.exactly(4) == b"efgh"
            assert old.process.wait(timeout=5.0) == 0
