"""What it is told: options, environment, one file. What is wrong is said in one line, before anything is opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from disco_sidecar.cli import main
from discoclient.system.ports import pick_ports

from .origin import Origin
from .stage import Sidecar, fixed, toml
from .wire import Client, ask, get

ROOT = Path(__file__).parents[2]
REGISTRY = "static://experiment=127.0.0.1:1"


def run(*options: str, registry: str = REGISTRY, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "disco_sidecar", *options],
        env=os.environ | {"PYTHONPATH": path, "DISCO_REGISTRY": registry} | env,
        capture_output=True,
        text=True,
        timeout=20,
    )


class Command:
    """The command in this process, for what is over before anything is opened: an interpreter's start takes a second."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def is_wrong(self, word: str, *options: str, registry: str = REGISTRY) -> None:
        """It ends with 2, and with one line on standard error that has *word* in it."""
        self._monkeypatch.setenv("DISCO_REGISTRY", registry)
        assert main(["--check", *options]) == 2
        printed = self._capsys.readouterr()
        assert printed.out == ""
        lines = [line for line in printed.err.splitlines() if not line.startswith(("usage:", " "))]
        assert len(lines) == 1, printed.err
        assert word in lines[0], lines[0]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--bind", "nonsense"], "nonsense"),
        (["--bind", "127.0.0.1:99999"], "99999"),
        (["--bind", "127.0.0.1:-1"], "-1"),
        (["--bind", "evil.example:80"], "evil.example"),
        (["--bind", "unix:"], "--bind"),
        (["--bind", "0.0.0.0:7500"], "--allow-remote"),
        (["--bind", "[::]:7500"], "--allow-remote"),
        (["--admin", "0.0.0.0:7501"], "--allow-remote"),
        (["--bind", "192.0.2.1:7500"], "--allow-remote"),
        (["--listen", "8081"], "SERVICE"),
        (["--listen", "8081=Not_A_Name"], "Not_A_Name"),
        (["--listen", "x=experiment"], "x"),
        (["--tcp", "5433="], "5433"),
        (["--listen", "8081=a", "--listen", "8081=b"], "8081"),
        (["--listen", "8081=a", "--tcp", "8081=b"], "8081"),
        (["--bind", "127.0.0.1:7500", "--listen", "7500=a"], "7500"),
        (["--workers", "0"], "0"),
        (["--workers", "many"], "many"),
        (["--allow-host", "http://x/"], "http://x/"),
        (["--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (["--no-such-option"], "--no-such-option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_said_in_one_line(command: Command, options: list[str], word: str) -> None:
    command.is_wrong(word, *options)


def test_without_check_it_is_said_all_the_same_and_nothing_is_started() -> None:
    done = run("--bind", "0.0.0.0:7500")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("bind = ", "sidecar.toml"),
        ('bnid = "127.0.0.1:7500"', "bnid"),
        ("bind = 7", "bind"),
        ('workers = "many"', "workers"),
        ("idle_timeout = -1", "idle"),
        ("header_timeout = 0", "header"),
        ('listen = ["8081"]', "8081"),
        ('allow_remote = "perhaps"', "remote"),
        ("max_connections = 1.5", "connections"),
        ("read_timeout = nan", "read"),
        ('[bind]\nx = "y"', "bind"),
        ("\x00", "sidecar.toml"),
    ],
)
def test_a_wrong_line_in_the_file_is_said_in_one_line(
    command: Command, tmp_path: Path, text: str, word: str
) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text(text)
    command.is_wrong(word, "--config", str(file))


@pytest.mark.parametrize("registry", ["nonsense", "etcd://", "consul://x", "static://x", "etcd://h:1?nope=1"])
def test_a_wrong_registry_is_said_in_one_line(command: Command, registry: str) -> None:
    command.is_wrong("DISCO_REGISTRY", registry=registry)


def test_a_password_in_the_registrys_address_is_not_shown() -> None:
    done = run("--check", registry="etcd://user:hunter2@127.0.0.1:1/p")
    assert "hunter2" not in done.stdout + done.stderr


def test_a_good_configuration_is_checked_without_opening_anything(tmp_path: Path) -> None:
    (port, admin) = pick_ports(2)
    file = tmp_path / "sidecar.toml"
    settings = {
        "bind": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "listen": ["8081=experiment", f"unix:{tmp_path}/e.sock=experiment"],
        "tcp": ["5433=ledger"],
        "allow_host": ["legacy.internal"],
        "workers": 2,
    }
    file.write_text(toml(settings))
    with Origin(port=port):
        done = run("--check", "--config", str(file))
    assert done.returncode == 0, done
    assert not (tmp_path / "e.sock").exists()


def test_an_address_that_is_taken_is_said_in_one_line_with_the_address() -> None:
    with Origin() as stranger:
        (admin,) = pick_ports(1)
        done = run("--bind", f"127.0.0.1:{stranger.port}", "--admin", f"127.0.0.1:{admin}")
        assert done.returncode in (1, 2)
        assert str(stranger.port) in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_at_the_sockets_path_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    (admin,) = pick_ports(1)
    done = run("--bind", f"unix:{precious}", "--admin", f"127.0.0.1:{admin}")
    assert done.returncode in (1, 2)
    assert precious.read_text() == "data"
    assert "Traceback" not in done.stderr


def test_the_command_line_beats_the_file() -> None:
    (wanted, unwanted) = pick_ports(2)
    with Origin() as origin:
        settings = {"listen": [f"{wanted}=experiment"], "bind": f"127.0.0.1:{unwanted}"}
        with Sidecar(fixed(experiment=[origin]), settings=settings) as sidecar:
            assert ask(sidecar.address, get("/experiment/x")).status == 200
            with pytest.raises(OSError), Client(("127.0.0.1", unwanted)):
                pass


def test_the_file_alone_is_enough(tmp_path: Path) -> None:
    (port,) = pick_ports(1)
    with Origin() as origin:
        settings = {"tcp": [f"{port}=experiment"], "max_connections": 7}
        with Sidecar(fixed(experiment=[origin]), settings=settings):
            assert ask(("127.0.0.1", port), get("/raw")).status == 200
            assert origin.only("/raw").get("host") == "localhost", "raw: nothing is rewritten"
            assert not origin.only("/raw").all("via")


def test_several_addresses_at_once_both_loopbacks_among_them(tmp_path: Path) -> None:
    (four, six) = pick_ports(2)
    with Origin() as origin:
        options = ["--bind", f"127.0.0.1:{four}", "--bind", f"[::1]:{six}"]
        with Sidecar(fixed(experiment=[origin]), *options) as sidecar:
            for address in (sidecar.address, ("127.0.0.1", four), ("::1", six)):
                assert ask(address, get("/experiment/x")).status == 200


def test_allow_remote_opens_other_addresses_and_says_so() -> None:
    (port,) = pick_ports(1)
    with Origin() as origin:
        options = ["--bind", f"0.0.0.0:{port}", "--allow-remote"]
        with Sidecar(fixed(experiment=[origin]), *options) as sidecar:
            assert ask(("127.0.0.1", port), get("/experiment/x")).status == 200
            sidecar.terminate()
            sidecar.process.wait(timeout=5.0)
        assert "remote" in sidecar.process.errors or "other machines" in sidecar.process.errors


def test_it_is_quiet_by_default_and_the_access_log_is_json_on_demand() -> None:
    with Origin() as origin:
        with Sidecar(fixed(experiment=[origin])) as quiet:
            assert ask(quiet.address, get("/experiment/x")).status == 200
        assert quiet.process.output == ""
        with Sidecar(fixed(experiment=[origin]), "--access-log", "-") as loud:
            ask(loud.address, get('/experiment/x?q="\\', 'User-Agent: "a\\b'))
            ask(loud.address, get("/nobody/x"))
            assert 200 in json.loads(loud.process.wait_for_line("experiment")).values()
            assert 503 in json.loads(loud.process.wait_for_line("503")).values()
