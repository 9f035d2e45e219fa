"""Several distributions install a package named etcd3, and overwrite each other's files: that is said, where it matters."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient import ConfigError, DiscoClient
from discoclient.control.hub import fresh_hub
from tests.support.processes import Processes
from tests.support.servers import HttpServer, Servers

_ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from discoclient import ConfigError, DiscoClient, connect, register

etcd, static = "etcd://127.0.0.1:1", sys.argv[1]
client = DiscoClient("experiment", registry=etcd, discovery_timeout=0.2)  # no I/O, and no complaint, before the first use
handle = connect(etcd, discovery_timeout=0.2)
for use in (
    lambda: client.get("/"),
    lambda: handle.instances("experiment"),
    lambda: register("experiment", 9, host="127.0.0.1", registry=etcd, timeout=0.2),
):
    try:
        use()
    except ConfigError as error:
        print("refused:", error)
    except Exception as error:
        print("asked:", type(error).__name__)
with DiscoClient("experiment", registry=static) as other:
    print("static:", other.get("/").text)
"""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with Servers() as servers:
        yield servers.start()


def declare(folder: Path, *names: str) -> str:
    """A folder for ``sys.path`` in which the distributions *names* are installed, to all appearances."""
    folder.mkdir(exist_ok=True)
    for name in names:
        info = folder / f"{name.replace('-', '_')}-0.12.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.12.0\n")
    return str(folder)


def link_all_but(folder: Path, *prefixes: str) -> str:
    """A folder for ``sys.path`` with all that is installed here, but for what begins with one of *prefixes*."""
    folder.mkdir(exist_ok=True)
    for library in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for found in Path(library).iterdir():
            if not found.name.startswith(prefixes or ("\0",)) and found.suffix != ".pth":
                (folder / found.name).symlink_to(found)
    return str(folder)


def run(processes: Processes, server: HttpServer, path: str, *flags: str) -> tuple[list[str], str]:
    """What came of the uses of etcd, and what came of ``static://``, with *path* on ``sys.path``."""
    process = processes.python(
        *flags,
        "-c",
        PROGRAM,
        f"static://experiment={server.address}",
        env={"PYTHONPATH": f"{path}{os.pathsep}{_ROOT}"},
    )
    assert process.wait(timeout=30) == 0, process.errors
    assert process.errors == ""
    *etcd, static = process.output.splitlines()
    return etcd, static


def test_two_that_conflict_are_named_when_etcd_is_first_used_and_nothing_else_suffers(
    processes: Processes, server: HttpServer, tmp_path: Path
) -> None:
    etcd, static = run(processes, server, declare(tmp_path, "etcd3"))
    expected = (
        "refused: the distributions python3-etcd3, etcd3 all install a package named etcd3 and overwrite each other: "
        "pip uninstall python3-etcd3 etcd3, then pip install python3-etcd3"
    )
    assert etcd == [expected] * 3
    assert static == f"static: {server.port}"


@pytest.mark.parametrize("others", [["cslab-etcd3"], ["etcd3-py"], ["etcd3", "etcd3-py"]], ids=" ".join)
def test_all_that_conflict_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, others: list[str]
) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, *others))
    expected = f"pip uninstall python3-etcd3 {' '.join(others)}, then pip install python3-etcd3"
    with (
        fresh_hub(),
        DiscoClient("experiment", registry="etcd://127.0.0.1:1") as client,
        pytest.raises(ConfigError, match=re.escape(expected)),
    ):
        client.get("/")


def test_the_wrong_one_alone_is_named(processes: Processes, server: HttpServer, tmp_path: Path) -> None:
    path = link_all_but(tmp_path, "python3_etcd3-")
    etcd, static = run(processes, server, declare(Path(path), "etcd3"), "-S")
    expected = (
        "refused: the distribution etcd3 installs a package named etcd3 that is not the one needed: "
        "pip uninstall etcd3, then pip install python3-etcd3"
    )
    assert etcd == [expected] * 3
    assert static == f"static: {server.port}"


def test_none_at_all_is_said_with_what_to_install(
    processes: Processes, server: HttpServer, tmp_path: Path
) -> None:
    etcd, static = run(processes, server, link_all_but(tmp_path, "etcd3", "python3_etcd3-"), "-S")
    assert etcd == ["refused: an etcd registry needs python3-etcd3: pip install python3-etcd3"] * 3
    assert static == f"static: {server.port}"


def test_files_that_are_gone_are_said_as_such(
    processes: Processes, server: HttpServer, tmp_path: Path
) -> None:
    """What pip leaves behind when one of two is uninstalled: the word of the other, without the package."""
    etcd, static = run(processes, server, link_all_but(tmp_path, "etcd3"), "-S")
    assert etcd == ["refused: the etcd registry can't be loaded: No module named 'etcd3'"] * 3
    assert static == f"static: {server.port}"


def test_with_the_right_one_alone_etcd_is_asked(
    processes: Processes, server: HttpServer, tmp_path: Path
) -> None:
    """The negative control, for both ways to tell the program what is installed."""
    expected = ["asked: DiscoveryTimeout", "asked: DiscoveryTimeout", "asked: RegistryUnavailable"]
    unrelated = declare(tmp_path / "unrelated", "etcd3-unrelated")
    assert run(processes, server, unrelated) == (expected, f"static: {server.port}")
    assert run(processes, server, link_all_but(tmp_path / "all"), "-S") == (
        expected,
        f"static: {server.port}",
    )
