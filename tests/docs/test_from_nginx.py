"""docs/from-nginx.md is true: its five commands, as pasted, move a real client from real nginx to the sidecar, and back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from disco_sidecar.settings import OPTIONS
from discoclient.system.family import is_empty, signal_group
from discoclient.system.ports import pick_ports
from discoclient.system.process import Process, end, spawn
from tests.support.eventually import eventually

TEXT = (Path(__file__).parents[2] / "docs" / "from-nginx.md").read_text()
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
NGINX = shutil.which("nginx", path=SBIN)
PORTS = ("8001", "8002", "8080", "8090", "7501")
"""Those of the page. Each run has others."""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
SLOW = 30.0


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for said, block in found if said == language]


def commands() -> list[tuple[str, str]]:
    """Each command with what it printed on the page."""
    shown = [block.partition("\n") for block in blocks(section("Five commands"), "console")]
    return [(command.removeprefix("$ "), output) for command, _, output in shown]


class Host:
    """A host with two services, nginx in front of them, and a shell. The page's ports are ours there, by another number."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._folder = folder
        numbers = [str(port) for port in pick_ports(len(PORTS) + 1)]
        self.port = dict(zip(PORTS, numbers, strict=False))
        bin = folder / "bin"
        bin.mkdir()
        for name in ("users", "nginx", "nginx/logs"):
            (folder / name).mkdir()
        (folder / "users" / "1").write_text('{"id": 1, "name": "Ada"}\n')
        (folder / "sidecar.toml").write_text(self.here(blocks(section("Before"), "toml")[0]))
        self._write_nginx(bin / "nginx")
        path = os.pathsep.join([str(bin), str(Path(sys.executable).parent), SBIN])
        self.environ = {
            **{name: value for name, value in os.environ.items() if name.lower() != "http_proxy"},
            "DISCO_REGISTRY": registry,
            "DISCO_SIDECAR_BIND": f"127.0.0.1:{numbers[-1]}",
            "DISCO_SIDECAR_ADMIN": f"127.0.0.1:{self.port['7501']}",
            "PATH": path,
        }
        self._services: list[Process] = []
        self._said = folder / "said"

    def here(self, text: str) -> str:
        return re.sub(r"\b(?:" + "|".join(PORTS) + r")\b", lambda found: self.port[found[0]], text)

    def _write_nginx(self, command: Path) -> None:
        folder = self._folder / "nginx"
        (server,) = blocks(section("Before"), "nginx")
        temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
        (folder / "nginx.conf").write_text(
            f"pid {folder}/pid; error_log {folder}/logs/error.log; worker_processes 1; events {{}}\n"
            f"http {{ access_log {folder}/logs/access.log; {temporary}\n{self.here(server)}}}\n"
        )
        command.write_text(f'#!/bin/sh\nexec {NGINX} -p {folder}/ -c nginx.conf -e stderr "$@"\n')
        command.chmod(0o755)

    def nginx(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["nginx", *arguments], env=self.environ, capture_output=True, timeout=SLOW)

    def begin(self) -> None:
        for name in ("8001", "8002"):
            command = [sys.executable, "-m", "http.server", self.port[name], "--bind", "127.0.0.1"]
            self._services.append(spawn(command, cwd=self._folder))
        for name in (
            "8001",
            "8002",
        ):  # before nginx asks: whom it can't reach it leaves alone for ten seconds
            eventually(partial(self.is_open, name), timeout=SLOW, what="it listens")
        done = self.nginx()
        assert done.returncode == 0, done.stderr
        eventually(lambda: self.get("8080").status_code == 200, timeout=SLOW, what="nginx reaches a service")
        with self._said.open("wb") as said:
            self._shell = spawn(
                ["bash"], env=self.environ, cwd=self._folder, stdin=subprocess.PIPE, stdout=said, stderr=said
            )

    def type(self, command: str) -> str:
        """What it has printed when the shell takes the next one."""
        assert self._shell.stdin is not None
        begin = len(self.said)
        self._shell.stdin.write(f"{self.here(command)}\necho DONE\n".encode())
        self._shell.stdin.flush()
        eventually(lambda: "DONE\n" in self.said[begin:], timeout=SLOW, what=f"{command!r} is over")
        return self.said[begin:].replace("DONE\n", "")

    @property
    def said(self) -> str:
        return self._said.read_text()

    def get(self, port: str) -> httpx.Response:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port[port]}/users/1", trust_env=False, timeout=SLOW)
        except httpx.TransportError as error:
            raise AssertionError(f"{error!r}; the shell said {self.said}") from error

    def is_open(self, port: str) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(self.port[port]))) == 0

    def state(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port['7501']}/api/services"
        state: dict[str, Any] = httpx.get(url, trust_env=False, timeout=SLOW).json()
        return state

    def end(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.nginx("-s", "stop")
        if hasattr(self, "_shell"):
            signal_group(self._shell.pid, signal.SIGKILL)  # nobody waits for these drains
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            self._shell.wait()
            eventually(lambda: is_empty(self._shell.pid), timeout=SLOW, what="all of it has ended")
        for service in self._services:
            end(service, grace=5.0)


@contextmanager
def host(folder: Path, registry: str) -> Iterator[Host]:
    made = Host(folder, registry)
    try:
        made.begin()
        yield made
    finally:
        made.end()


def alike(text: str) -> str:
    """Without what is another one each time."""
    text = re.sub(r"[0-9a-f]{32}", "ID", text)
    text = re.sub(r"^(Date|Last-Modified|Server): .*$", r"\1: ...", text, flags=re.MULTILINE)
    text = re.sub(r"^[0-9/]+ [0-9:]+ \[notice\] [0-9#]+:", "TIME [notice] N:", text, flags=re.MULTILINE)
    return re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text).replace("\r", "")


def test_there_are_five_commands() -> None:
    assert len(commands()) == 5


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_the_five_commands_as_pasted_move_the_client_and_the_way_back_is_one(
    tmp_path: Path, registry_url: str
) -> None:
    (register, registered), (ls, listed), (start, nothing), (try_it, tried), (hand_over, handed) = commands()
    with host(tmp_path, registry_url) as here:
        before = here.get("8080")
        assert before.headers["server"].startswith("nginx")

        here.type(register)
        eventually(
            lambda: here.said.count("\nregistered ") + here.said.startswith("registered ") == 2, timeout=SLOW
        )
        found = [line for line in here.said.splitlines() if line.startswith("registered ")]
        assert set(map(alike, found)) == set(map(alike, registered.splitlines()))

        printed = here.type(ls).splitlines()
        shown = listed.splitlines()
        assert printed[0].split() == shown[0].split()
        assert len(printed) == len(shown) == 4
        assert {tuple(line.split()[1:3]) for line in printed[1:3]} == {
            (here.here(line.split()[1]), line.split()[2]) for line in shown[1:3]
        }

        assert nothing == ""
        said = here.type(start)
        eventually(lambda: here.is_open("8090"), timeout=SLOW, what="the sidecar listens beside nginx")
        assert said == ""
        assert alike(here.type(try_it)) == alike(tried)
        assert here.get("8080").headers["server"].startswith("nginx")
        old = here.state()["sidecar"]["pid"]

        assert alike(here.type(hand_over)) == alike(handed)
        eventually(lambda: here.get("8080").headers["via"] == "1.1 disco-sidecar", timeout=SLOW)
        assert here.get("8080").content == before.content
        eventually(lambda: not here.is_open("8090"), timeout=SLOW, what="the first sidecar has ended")
        assert here.nginx("-s", "reload").returncode != 0, "nginx has ended"
        assert here.state()["sidecar"]["pid"] != old
        assert '"status": 200' in (tmp_path / "access.log").read_text()

        if shutil.which("jq", path=SBIN) is None:
            pytest.skip("jq is not installed: the way back is not tried")
        (back,) = blocks(section("Back again"), "sh")
        here.type(back)
        eventually(lambda: here.get("8080").headers["server"].startswith("nginx"), timeout=SLOW)
        eventually(lambda: here.get("8090").headers["via"] == "1.1 disco-sidecar", timeout=SLOW)


def test_each_option_that_is_named_exists() -> None:
    others = {"--bind", "--check", "--config"} | {option.flag for option in OPTIONS}
    disco = {
        "--port",
        "--health-path",
        "--quiet",
        "--weight",
        "--scheme",
        "--http-keepalive",
        "--replace",
        "--promote-after",
    }
    render = {"--template", "--out", "--reload"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) <= others | disco | render


def test_a_default_that_the_table_compares_with_nginx_is_the_default() -> None:
    defaults = {option.flag: option.default for option in OPTIONS}
    compared = re.findall(r"`(--[a-z-]+)` \((\d+) s\)", section("Directive by directive"))
    assert len(compared) >= 4
    for flag, seconds in compared:
        assert defaults[flag] == float(seconds), flag
