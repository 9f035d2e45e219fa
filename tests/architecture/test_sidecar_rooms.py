"""The sidecar's house: who may import whom, what stays pure, and what the proxy never loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from .test_rooms import IMPURE_MODULES, MAX_LINES, ROOT

PACKAGE = "disco_sidecar"
FOLDER = ROOT / "sidecar" / PACKAGE

# Who may import whom: folders, and the modules at the top.
ALLOWED: dict[str, set[str]] = {
    "http": set(),
    "routing": {"http"},
    "places": set(),
    "slim": set(),
    "proxy": {"http", "routing"},
    "admin": set(),
    "dns": set(),
    "rendering": set(),
    "options": {"places"},
    "settings": {"http", "options", "places", "proxy"},
    "running": {"http", "routing", "options", "places", "proxy", "admin", "dns", "settings"},
    "cli": {"options", "settings", "places", "running"},
    "__main__": {"cli", "slim"},
}
PURE = {
    "http",
    "routing",
    "places",
    "admin/merging.py",
    "admin/metrics.py",
    "admin/readiness.py",
    "dns/answers.py",
    "dns/names.py",
    "dns/queries.py",
    "proxy/counts.py",
    "rendering/machine.py",
}
ONLY_HERE = {"jinja2": "rendering", "dnslib": "dns", "prometheus_client": "admin", "uvloop": "running"}


def files() -> list[tuple[str, ast.Module, str]]:
    found = sorted(FOLDER.rglob("*.py"))
    return [
        (path.relative_to(FOLDER).as_posix(), ast.parse(path.read_text()), path.read_text()) for path in found
    ]


def room_of(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return parts[0]


def imports(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and absolute module, ours as ``disco_sidecar.room...``."""
    here = [PACKAGE, *PurePosixPath(path).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, node.module or ""
                continue
            base = here[: len(here) - (node.level - 1)]
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else [alias.name])])


def complaints(path: str, tree: ast.Module, source: str) -> list[str]:
    room, found = room_of(path), []
    for line, module in imports(path, tree):
        top, _, rest = module.partition(".")
        if top == PACKAGE:
            target = rest.partition(".")[0]
            if target in {*ALLOWED} and target != room and target not in ALLOWED.get(room, set()):
                found.append(f"{path}:{line}: {room} imports {target}; it may import {sorted(ALLOWED[room])}")
        elif ONLY_HERE.get(top, room) != room:
            found.append(f"{path}:{line}: {top} is for {ONLY_HERE[top]} alone")
        if top in IMPURE_MODULES and (room in PURE or path in PURE):
            found.append(f"{path}:{line}: a pure file imports {module}")
    lines = len(source.splitlines())
    if lines > MAX_LINES:
        found.append(f"{path}: {lines} lines; at most {MAX_LINES}")
    return found


def test_the_house_keeps_its_laws() -> None:
    found = [complaint for path, tree, source in files() for complaint in complaints(path, tree, source)]
    assert not found, "\n".join(found)


def test_every_room_is_drawn_and_every_pure_file_exists() -> None:
    rooms = {room_of(path) for path, _, _ in files()} - {"__init__"}
    assert rooms == set(ALLOWED)
    assert {path for path, _, _ in files()} | rooms >= PURE


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("http/x.py", "from ..proxy.gate import Gate"),
        ("proxy/x.py", "from ..admin import Observer"),
        ("proxy/x.py", "def f():\n    from ..dns import DnsServer"),
        ("proxy/x.py", "import jinja2"),
        ("admin/x.py", "from ..proxy.counts import BOUNDS"),
        ("routing.py", "import asyncio"),
        ("http/x.py", "from socket import socket"),
        ("http/x.py", "\n" * (MAX_LINES + 1)),
    ],
)
def test_what_breaks_a_law_is_found(path: str, source: str) -> None:
    assert complaints(path, ast.parse(source), source)


def test_a_running_proxy_has_loaded_neither_templates_nor_dns_nor_grpc() -> None:
    """Nor the command lines of others: what is not needed costs memory in every process."""
    program = (
        "import sys; sys.argv[1:] = ['--check']\n"
        "from disco_sidecar.__main__ import main\n"
        "import disco_sidecar.running.process, discoclient.registry.etcd.registry\n"
        "from discoclient.registry.etcd import messages; messages.load()\n"
        "names = ('jinja2', 'dnslib', 'grpc', 'rich', 'click', 'prometheus_client', 'disco_sidecar.rendering')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path("/")
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
