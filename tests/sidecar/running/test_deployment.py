"""The files in examples/sidecar say what is so: names that exist, addresses that agree, a configuration that is good."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from disco_sidecar.options import OPTIONS, gather
from disco_sidecar.places import parse_place
from disco_sidecar.settings import Settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "sidecar"
CONFIG = FOLDER / "disco-sidecar.toml"


def words(file: str, key: str) -> list[str]:
    """The values of *key* in a unit."""
    lines = (FOLDER / file).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def instructions(name: str) -> list[str]:
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Containerfile").read_text())
    return [line.removeprefix(name + " ") for line in text.splitlines() if line.startswith(name + " ")]


def settings() -> Settings:
    return Settings.of(gather({}, {}, config=str(CONFIG)))


# ---- the configuration


def test_the_configuration_is_good() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "disco_sidecar", "--config", CONFIG, "--check"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (said.returncode, said.stderr) == (0, "")


def test_what_it_says_is_what_holds_without_it() -> None:
    told, default = settings(), Settings.of({})
    assert (told.listeners, told.policy) == (default.listeners, default.policy)


def test_it_shows_every_option_and_what_is_commented_out_is_right_too(tmp_path: Path) -> None:
    text = CONFIG.read_text()
    commented = re.findall(r"(?m)^# (\w+ = .*)$", text)
    plain = tomllib.loads(text)
    names = {line.partition(" ")[0] for line in commented} | set(plain)
    assert names == {option.name for option in OPTIONS}
    for line in commented:
        (tmp_path / "toml").write_text(line)
        values = gather({}, {}, config=str(tmp_path / "toml"))
        Settings.of(values)
        (option,) = (option for option in OPTIONS if option.name in values)
        if option.default not in (None, ()) and not option.is_many:
            assert values[option.name] == option.default, line


# ---- the units


def test_each_socket_of_systemds_is_an_address_of_the_configuration() -> None:
    listeners = settings().listeners
    found = set()
    for address in words("disco-sidecar.socket", "ListenStream"):
        place = parse_place(address, "ListenStream")
        (listener,) = (each for each in listeners if each.place.port == place.port)
        assert place.host in listener.place.hosts
        found.add((listener, place.host))
    assert found == {(listener, host) for listener in listeners for host in listener.place.hosts}


def test_the_unit_gives_it_time_to_end_and_files_enough() -> None:
    (stop,) = words("disco-sidecar.service", "TimeoutStopSec")
    (files,) = words("disco-sidecar.service", "LimitNOFILE")
    assert float(stop) > settings().drain_timeout
    assert int(files) > 2 * settings().policy.max_connections


def test_its_command_names_what_exists() -> None:
    (command,) = words("disco-sidecar.service", "ExecStart")
    program, *options = command.split()
    pyproject = tomllib.loads((ROOT / "sidecar" / "pyproject.toml").read_text())
    assert Path(program).name in pyproject["project"]["scripts"]
    assert options == ["--config", f"/etc/{CONFIG.name}"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    for name in ("disco-sidecar.service", "disco-sidecar.socket"):
        # It looks whether there is such a command; here it is wherever the tests' is.
        text = (FOLDER / name).read_text().replace("/usr/local/bin/disco-sidecar", sys.executable)
        (tmp_path / name).write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=30,
    )
    ours = [line for line in said.stderr.splitlines() if "disco-sidecar" in line]
    assert (said.returncode, ours) == (0, []), said.stderr


# ---- the container


def test_the_container_copies_what_exists_and_all_that_is_installed() -> None:
    copied = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from")]
    sources = [source for line in copied for source in line]
    assert all((ROOT / source).exists() for source in sources), sources
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {
        "pyproject.toml",
        pyproject["readme"],
        *pyproject["license-files"],
        "discoclient",
        "sidecar",
    } <= set(sources)


def test_its_commands_name_what_exists() -> None:
    (entry,) = instructions("ENTRYPOINT")
    program, *options = json.loads(entry)
    assert Path(program).name == "disco-sidecar"
    assert options == ["--config", "/etc/disco-sidecar.toml"]
    (install,) = instructions("RUN")
    folder = str(Path(program).parents[1])
    assert f"python -m venv {folder} " in install
    assert f"{folder} {folder}" in " ".join(instructions("COPY"))
    (health,) = instructions("HEALTHCHECK")
    admin = settings().admin
    assert admin is not None
    assert f"http://{admin.place}/healthz" in health
    compile(json.loads(health.partition("CMD ")[2])[2], "health", "exec")


def test_its_python_is_one_that_we_support() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = tuple(map(int, pyproject["requires-python"].removeprefix(">=").split(".")))
    for image in instructions("FROM"):
        match = re.match(r"python:(\d+)\.(\d+)-slim", image)
        assert match is not None
        assert (int(match[1]), int(match[2])) >= least
