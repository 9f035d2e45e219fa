"""SIGHUP: another process takes over without a refused connection; and if it can't, the first one goes on."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.sidecar.running.starting import Connecting, Starter, is_alive, paused
from tests.support.eventually import eventually
from tests.support.servers import HttpServer, Servers, refused_port


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_takes_over_without_a_refused_connection(workers: str, start: Starter, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    started = start("--bind", f"unix:{path}", "--workers", workers).wait_ready()
    with Connecting(f"{started.url}/experiment/") as connecting:
        second = started.hang_up()
        connecting.more()
    assert connecting.failures == []
    assert second != started.pid
    assert "Traceback" not in started.errors
    assert path.exists()  # it is the successor's by now
    said = started.notified.drain()
    (reloading,) = (lines for pid, lines in said if pid == started.pid and "RELOADING=1" in lines)
    assert reloading[1].startswith("MONOTONIC_USEC=")
    # systemd hears the main process alone, so that it must say who is the next one.
    assert ["READY=1", f"MAINPID={second}"] in [lines for pid, lines in said if pid == started.pid]
    assert ["STOPPING=1"] not in [lines for _, lines in said]
    os.kill(second, signal.SIGTERM)
    eventually(lambda: not start.alive(), what="all have ended", timeout=15)
    assert not path.exists()


def test_a_stop_and_a_start_refuse_some(start: Starter) -> None:
    """The negative control of the test above."""
    started = start().wait_ready()
    with Connecting(f"{started.url}/experiment/") as connecting:
        started.kill(signal.SIGTERM)
        assert started.process.wait() == 0
        connecting.more()
        start(port=started.port, admin=started.admin_port).wait_ready()
        connecting.more()
    assert connecting.failures != []


def test_a_successor_has_the_configuration_as_it_is_by_then(
    start: Starter, servers: Servers, tmp_path: Path
) -> None:
    ledger, port = servers.start(), start().wait_ready()
    port.process.kill()
    config = tmp_path / "toml"
    config.write_text(f"listen = '{port.port}=experiment'")
    registry = f"{start.registry};ledger={ledger.address}"
    started = start("--config", str(config), "--registry", registry).wait_ready()
    url = f"http://127.0.0.1:{port.port}/"
    assert httpx.get(url).text != str(ledger.port)
    config.write_text(f"listen = '{port.port}=ledger'")  # the same address, for another service
    started.hang_up()
    assert httpx.get(url).text == str(ledger.port)


def test_one_that_fails_leaves_the_first_one_serving_and_the_next_try_may_succeed(
    start: Starter, tmp_path: Path
) -> None:
    config, path = tmp_path / "toml", tmp_path / "socket"
    config.write_text(f"bind = ['unix:{path}']")
    started = start("--config", str(config), "--bind", f"unix:{path}").wait_ready()
    config.write_text("bind = 5")
    with Connecting(f"{started.url}/experiment/") as connecting:
        started.kill(signal.SIGHUP)
        started.said_error("SIGHUP: the successor failed (exit code 2); this process goes on")
        connecting.more()
    assert connecting.failures == []
    assert f"--config {config}: bind is a text; got 5" in started.errors
    assert started.state()["pid"] == started.pid
    said = [lines for pid, lines in started.notified.drain() if pid == started.pid]
    assert said[-1] == ["READY=1"]  # it reloads no more
    assert start.alive() == {started.pid}
    config.write_text("idle_timeout = 5")
    assert started.hang_up() != started.pid


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_that_would_know_nothing_does_not_take_over(workers: str, start: Starter, tmp_path: Path) -> None:
    """With the registry away, the old process still knows whom to call, and a new one does not."""
    config = tmp_path / "toml"
    config.write_text(f"registry = '{start.registry}'\ndiscovery_timeout = 0.1")
    started = start("--config", str(config), "--workers", workers, registry="").wait_ready()
    assert started.get() == 200
    with refused_port() as port:
        config.write_text(f"registry = 'etcd://127.0.0.1:{port}'\ndiscovery_timeout = 0.1")
        with Connecting(f"{started.url}/experiment/") as connecting:
            started.kill(signal.SIGHUP)
            started.said_error("SIGHUP: the successor failed (exit code 1); this process goes on")
    assert connecting.failures == []  # it has not taken a share of the requests either
    assert "not ready within 0.5 s: the registry has not answered yet" in started.errors
    assert started.get() == 200


def test_one_that_failed_after_it_had_the_sockets_does_not_keep_the_file(
    start: Starter, tmp_path: Path
) -> None:
    path, config = tmp_path / "socket", tmp_path / "toml"
    config.write_text("")
    started = start("--config", str(config), "--bind", f"unix:{path}").wait_ready()
    with closing(socket.socket()) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        config.write_text(f"listen = '{stranger.getsockname()[1]}=experiment'")
        started.kill(signal.SIGHUP)
        started.said_error("SIGHUP: the successor failed (exit code 1); this process goes on")
    started.kill(signal.SIGTERM)
    assert started.process.wait() == 0
    assert not path.exists()


def test_a_second_one_meanwhile_changes_nothing_and_an_end_ends_both(start: Starter) -> None:
    started = start().wait_ready()
    started.kill(signal.SIGHUP)
    second = eventually(start.successors, what="a successor", timeout=15).pop()
    with paused(second):  # it can't get ready
        started.kill(signal.SIGHUP)
        started.said_error(f"SIGHUP: a successor (pid {second}) is about to take over already")
        assert start.alive() == {started.pid, second}
        started.kill(signal.SIGTERM)
    assert started.process.wait() == 0
    eventually(lambda: not is_alive(second), what="the successor has ended, too", timeout=10)


def test_a_successor_of_a_killed_one_serves_all_the_same(start: Starter) -> None:
    started = start().wait_ready()
    started.kill(signal.SIGHUP)
    second = eventually(start.successors, what="a successor", timeout=15).pop()
    with paused(second):
        started.kill(signal.SIGKILL)
        started.process.wait()
    assert started.notified.wait_for("READY=1") == second
    assert (started.state()["pid"], started.get()) == (second, 200)


def test_another_sidecar_at_the_same_address_is_told_of_in_the_log(
    start: Starter, server: HttpServer
) -> None:
    started = start().wait_ready()
    other = start(port=started.port, admin=started.admin_port).wait_ready()
    started.said_error(
        f"bind 127.0.0.1:{started.port} is shared with another sidecar from now on, pid {other.pid}"
    )
    with Connecting(f"{started.url}/experiment/") as connecting:
        started.kill(signal.SIGTERM)
        assert started.process.wait() == 0
        connecting.more()
    assert connecting.failures == []


def test_one_that_means_something_else_is_refused_with_the_pid(start: Starter) -> None:
    started = start().wait_ready()
    other = start("--bind", "off", "--listen", f"{started.port}=ledger", port=started.admin_port - 1, admin=1)
    assert other.process.wait(timeout=15) == 1
    assert f"a sidecar (pid {started.pid}) listens there for something else: bind 127.0.0.1:" in other.errors
    assert started.get() == 200
