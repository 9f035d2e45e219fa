"""How the command learns its port, and what else it is given."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.cli.web import Web
from tests.running.conftest import Disco
from tests.running.keys import Keys
from tests.running.stage import HEALTH, SLOW, Stage, command, holds, is_refused, listener_of
from tests.support.eventually import eventually
from tests.support.ports import free_port


def test_the_command_gets_a_free_port_a_name_and_a_group_of_its_own(stage: Stage, keys: Keys) -> None:
    """And the registry gets what every option says."""
    options = (
        "--version", "2.4.1", "--weight", "50", "--zone", "eu-west-1a", "--hostname", "web-3", "--slot", "7",
        "--http-keepalive", "4.5", "--metadata", "team=red", "--metadata", "note=a=b", "--ttl", "9",
    )  # fmt: skip
    outer = {"PORT": "1", "DISCO_SERVICE": "other", "DISCO_INSTANCE": "other", "MINE": "kept"}
    run = stage.ready(*options, env=outer)
    env = run.facts["env"]
    assert int(env["PORT"]) == run.port
    assert (env["DISCO_SERVICE"], env["MINE"]) == ("experiment", "kept")
    assert "LISTEN_FDS" not in env
    (record,) = keys.records()
    assert (record["id"], record["host"], record["state"]) == (run.id, "127.0.0.1", "ready")
    assert (record["version"], record["weight"], record["zone"]) == ("2.4.1", 50, "eu-west-1a")
    assert (record["hostname"], record["slot"], record["http_keepalive"]) == ("web-3", "7", 4.5)
    assert record["metadata"] == {"team": "red", "note": "a=b"}
    assert 0 < keys.time_to_live(keys.instances("experiment")[run.id].lease) <= 9
    assert run.facts["pgid"] == run.pid
    assert run.pid != run.process.pid
    assert run.facts["blocked"] == []
    assert run.get().json() == {"pid": run.pid}


def test_two_of_them_side_by_side_have_ports_and_ids_of_their_own(stage: Stage) -> None:
    """What the environment says of all that runs on a host is heeded."""
    outer = {"DISCO_ZONE": "z", "DISCO_HOSTNAME": "web-9", "DISCO_HOST": "127.0.0.1"}
    runs = [stage.run("--slot", str(slot), env=outer) for slot in range(2)]
    for run in runs:
        run.wait_for("ready")
        assert (run.record["zone"], run.record["hostname"]) == ("z", "web-9")
    assert len({run.port for run in runs}) == len({run.id for run in runs}) == 2
    assert [run.get().json()["pid"] for run in runs] == [run.pid for run in runs]


def test_the_port_is_put_where_the_command_says_port_and_is_the_one_that_was_asked_for(stage: Stage) -> None:
    port = free_port()
    run = stage.ready("--port", str(port), program=["--port={port}"])
    assert run.port == port
    assert f"--port={port}" in run.facts["argv"]
    assert run.facts["env"]["PORT"] == str(port)


def test_a_port_file_is_believed_when_the_command_has_written_it_and_not_before(
    stage: Stage, keys: Keys, tmp_path: Path
) -> None:
    """The stale file names the port of somebody who answers every question well."""
    file = tmp_path / "port"
    with Web() as stranger:
        file.write_text(f"{stranger.port}\n")
        run = stage.ready(
            "--port-file", str(file), *HEALTH, program=["--port-file", str(file), "--delay", "0.4"]
        )
    assert run.port != stranger.port
    assert run.get().json() == {"pid": run.pid}
    values = [event.value for event in keys.history() if event.key.endswith(run.id)]
    assert {value["port"] for value in values if value is not None} == {run.port}


def test_a_port_file_that_nobody_writes_is_not_ready(stage: Stage, keys: Keys, tmp_path: Path) -> None:
    run = stage.run("--port-file", str(tmp_path / "port"), "--ready-timeout", "0.5", program=["--deaf"])
    assert run.wait() == 3
    assert keys.history() == []
    assert not run.is_serving


@pytest.mark.parametrize("how", ["--socket", "{fd}"])
def test_a_socket_is_handed_over_as_systemd_does(stage: Stage, how: str) -> None:
    """Bound to any port, or to the one that was asked for."""
    port = free_port()
    options, program = (
        (["--socket"], ["--fd", "3"]) if how == "--socket" else (["--port", str(port)], ["--fd", "{fd}"])
    )
    outer = {"PORT": "1", "LISTEN_FDS": "7", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b"}
    run = stage.ready(*options, *HEALTH, program=program, env=outer)
    facts = run.facts
    assert facts["argv"][-2:] == ["--fd", "3"]
    assert (facts["env"]["LISTEN_FDS"], facts["env"]["LISTEN_PID"]) == ("1", str(run.pid))
    assert "PORT" not in facts["env"]
    assert facts["listening"]
    assert facts["nodelay"]
    assert (run.port == port) == (how == "{fd}")
    assert run.get().json() == {"pid": run.pid}


def test_a_handed_over_socket_is_the_command_s_alone_so_that_a_crash_refuses_callers(stage: Stage) -> None:
    run = stage.ready("--socket", *HEALTH, program=["--fd", "3"])
    port = run.port
    inode = listener_of(port)
    assert inode is not None
    assert holds(run.pid, inode)
    assert not holds(run.process.pid, inode)
    # Stopped, the supervisor can't make up for it by ending.
    run.send(signal.SIGSTOP)
    run.send_child(signal.SIGKILL)
    eventually(lambda: not run.is_serving, what="the command is dead")
    assert eventually(lambda: is_refused(port), timeout=2.0, what="callers are refused")
    run.send(signal.SIGCONT)
    assert run.wait() == 137


def test_a_socket_needs_a_sign_of_life_because_the_kernel_accepts_for_it(stage: Stage, keys: Keys) -> None:
    """READY=1 is one. Without any it never becomes ready, although every connection is accepted."""
    silent = stage.run("--socket", "--ready-timeout", "0.7", "--slot", "1", program=["--fd", "3", "--deaf"])
    run = stage.run("--socket", "--slot", "2", program=["--fd", "3", "--notify"])
    assert run.facts["env"]["NOTIFY_SOCKET"]
    assert silent.wait() == 3
    assert not silent.is_serving
    assert keys.history() == []
    run.touch("go")
    run.wait_for("ready")
    assert run.get().json() == {"pid": run.pid}


def test_a_service_manager_that_waits_for_a_word_is_told_when_it_is_registered(
    stage: Stage, tmp_path: Path
) -> None:
    """And the command is not given its socket: the word is ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SLOW)
        outer = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        run = stage.run(*HEALTH, env=outer, name="told")
        run.touch("sick")
        eventually(lambda: run.probes >= 2, timeout=SLOW)
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
        manager.settimeout(SLOW)
        run.untouch("sick")
        assert b"READY=1" in manager.recv(4096).splitlines()
        assert run.state == "ready"
    assert run.facts["env"].get("NOTIFY_SOCKET") != outer["NOTIFY_SOCKET"]


@pytest.mark.parametrize(
    ("options", "words", "named"),
    [
        (["--socket", "--port-file", "F"], ["x"], ["--socket", "--port-file"]),
        (["--port", "81", "--port-file", "F"], ["x"], ["--port", "--port-file"]),
        (["--socket"], ["x", "{port}"], ["--socket", "{port}"]),
        ([], ["x", "{port}", "{fd}"], ["{port}", "{fd}"]),
        (["--port-file", "F"], ["x", "{fd}"], ["--port-file", "{fd}"]),
        ([], [], ["COMMAND"]),
        (["--ttl", "0.5"], ["x"], ["--ttl"]),
        (["--weight", "10001"], ["x"], ["--weight"]),
        (["--port", "70000"], ["x"], ["--port"]),
        (["--metadata", "novalue"], ["x"], ["--metadata", "K=V"]),
        (["--bake", "-1"], ["x"], ["--bake"]),
        (["--quiet", "-1"], ["x"], ["--quiet"]),
        (["--drain-timeout", "-1"], ["x"], ["--drain-timeout"]),
        (["--stop-timeout", "-1"], ["x"], ["--stop-timeout"]),
        (["--health-interval", "0"], ["x"], ["--health-interval"]),
        (["--health-failures", "0"], ["x"], ["--health-failures"]),
        (["--ready-timeout", "-1"], ["x"], ["--ready-timeout"]),
        (["--host", "0.0.0.0"], ["x"], ["host"]),
        (["--nonsense"], ["x"], ["--nonsense"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_excludes_each_other_or_makes_no_sense_is_wrong_usage(
    disco: Disco, registry_url: str, options: list[str], words: list[str], named: list[str]
) -> None:
    result = disco("--registry", registry_url, "run", "experiment", *options, "--", *words)
    assert (result.code, result.out) == (2, "")
    for word in named:
        assert word in result.err
    assert "Traceback" not in result.err


def test_a_service_s_name_and_a_registry_that_is_fixed_are_wrong_usage(
    disco: Disco, registry_url: str
) -> None:
    assert disco("--registry", registry_url, "run", "Not_A_Name", "--", "x").code == 2
    assert disco("--registry", "static://a=127.0.0.1:1", "run", "a", "--", "x").code == 2


def test_a_command_that_is_not_there_is_named(stage: Stage, keys: Keys) -> None:
    run = stage.run(command_line=["/no/such/program", "argument"])
    assert run.wait(timeout=SLOW) == 3
    assert "/no/such/program" in run.process.errors
    assert "Traceback" not in run.process.errors
    assert keys.history() == []


def test_a_shell_between_is_no_obstacle_and_nothing_below_it_is_left(stage: Stage) -> None:
    """Readiness, the drain's end and the command's exit are about whatever the command has started."""
    folder = stage._folder / "wrapped"
    line = " ".join(command(folder, "--on-term", "finish"))
    run = stage.ready(command_line=["sh", "-c", f"{line}; exit $?"], name="wrapped")
    assert run.facts["ppid"] != run.process.pid, "there is a shell between"
    assert run.get().json() == {"pid": run.pid}
    run.send(signal.SIGTERM)
    assert run.wait() == 0
    assert not run.is_serving


def test_the_command_s_output_and_input_are_its_own(stage: Stage) -> None:
    words = (
        "import sys; print('to standard output'); print('to standard error', file=sys.stderr); sys.exit(3)"
    )
    run = stage.run(command_line=[sys.executable, "-I", "-S", "-c", words])
    assert run.wait() == 3
    assert "to standard output" in run.process.output
    assert "to standard error" in run.process.errors
