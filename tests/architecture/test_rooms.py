"""The house stays as it is drawn: who may import whom, what stays pure, how long a file may get.

Each law is a function from parsed files to complaints, ``path:line: what``. The real files must give none; and each
law is shown a few lines that break it, and must complain.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "discoclient"
MAX_LINES = 350

# Who may import whom, from the bottom up. A room may always import itself. `client` is the file client.py; `doors` are
# the other modules at the top, the package's own `__init__` among them.
BELOW_THE_CLIENT = {"model", "registry", "balancing", "calling", "control", "transport"}
EVERYTHING = BELOW_THE_CLIENT | {"serving", "client", "system", "dev", "cli", "doors"}
ALLOWED: dict[str, set[str]] = {
    "model": set(),
    "registry": {"model"},
    "balancing": {"model"},
    "calling": {"model", "balancing"},
    "control": {"model", "registry", "balancing"},
    "serving": {"model", "registry", "control", "system"},
    "transport": {"model", "balancing", "calling", "control"},
    "dev": {"model", "system"},
    "system": {"model"},
    "client": BELOW_THE_CLIENT,
    "cli": EVERYTHING,
    "doors": EVERYTHING,
}
FOLDERS = set(ALLOWED) - {"client", "doors"}

PURE_ROOMS = {"model", "balancing", "calling"}
PURE_FILES = {
    "control/attendance.py",
    "registry/address.py",
    "registry/asked.py",
    "registry/codec.py",
    "registry/machine.py",
    "registry/memory_store.py",
    "registry/presence.py",
    "registry/sharing/frames.py",
    "serving/chronicle.py",
    "serving/drain.py",
    "serving/health.py",
    "serving/identity.py",
    "serving/keeper.py",
    "serving/life.py",
}
IMPURE_MODULES = {
    "anyio",
    "asyncio",
    "concurrent",
    "etcd3",
    "grpclib",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "trio",
}
# Counters must stay right under threads: the uncontended lock of an endpoint's, and those that the calls to a service share.
ADMITTED = {
    (path, "threading")
    for path in (
        "balancing/endpoint.py",
        "calling/budget.py",
        "calling/latencies.py",
        "calling/ledger.py",
        "calling/recovery.py",
        "calling/throttle.py",
    )
}
CLOCKS = {f"datetime.{kind}.{now}" for kind in ("datetime", "date") for now in ("now", "today", "utcnow")}
CHANCE = {"os.urandom", "uuid.uuid1", "uuid.uuid4"}


@dataclass(frozen=True)
class File:
    """One parsed file; *path* is relative to the package, with forward slashes."""

    path: str
    source: str
    tree: ast.Module

    @property
    def room(self) -> str:
        parts = PurePosixPath(self.path).parts
        if len(parts) > 1:
            return parts[0]
        return "client" if parts[0] == "client.py" else "doors"

    @property
    def is_pure(self) -> bool:
        return self.room in PURE_ROOMS or self.path in PURE_FILES

    @property
    def module(self) -> str:
        """The dotted name; of an ``__init__.py``, the package's."""
        parts = [PACKAGE, *PurePosixPath(self.path).with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def complaint(self, line: int, what: str) -> str:
        return f"{PACKAGE}/{self.path}:{line}: {what}"


@dataclass(frozen=True)
class Import:
    """One imported thing, absolute: ``from ..model import errors`` is module discoclient.model, name errors."""

    module: str
    name: str | None
    line: int
    at_run_time: bool


def parse(path: str, source: str) -> File:
    return File(path, source, ast.parse(source, path))


def house() -> list[File]:
    folder = ROOT / PACKAGE
    files = sorted(folder.rglob("*.py"))
    return [parse(file.relative_to(folder).as_posix(), file.read_text()) for file in files]


def imports(file: File) -> list[Import]:
    return list(_imports(file, file.tree, at_run_time=True))


def _imports(file: File, node: ast.AST, *, at_run_time: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, None, node.lineno, at_run_time)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level:
            here = file.module.split(".")
            if not file.path.endswith("__init__.py"):
                here.pop()
            here = here[: len(here) - (node.level - 1)]
            module = ".".join([*here, *([module] if module else [])])
        for alias in node.names:
            yield Import(module, alias.name, node.lineno, at_run_time)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.body:
            yield from _imports(file, child, at_run_time=False)
        for child in node.orelse:
            yield from _imports(file, child, at_run_time=at_run_time)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports(file, child, at_run_time=at_run_time)


def room_of(each: Import) -> str | None:
    """The room that an import reaches into, or None if it is not one of ours."""
    parts = each.module.split(".")
    if parts[0] != PACKAGE:
        return None
    if len(parts) == 1:  # `from discoclient import x`, `import discoclient`: a room by its name, else a door
        parts.append(each.name or "")
        if parts[1] not in FOLDERS and parts[1] != "client":
            return "doors"
    return parts[1] if parts[1] in FOLDERS or parts[1] == "client" else "doors"


# --- the laws --------------------------------------------------------------------------------------------------------


def rooms_import_downwards(files: list[File]) -> list[str]:
    complaints = []
    for file in files:
        if file.room not in ALLOWED:
            complaints.append(
                file.complaint(1, f"there is no room {file.room!r}; rooms: {', '.join(ALLOWED)}")
            )
            continue
        for each in imports(file):
            room = room_of(each)
            if room is not None and room != file.room and room not in ALLOWED[file.room]:
                may = ", ".join(sorted(ALLOWED[file.room])) or "nothing of this package"
                what = each.module if each.name is None else f"{each.name} from {each.module}"
                complaints.append(
                    file.complaint(each.line, f"{file.room} imports {what}; it may import {may}")
                )
    return complaints


def pure_rooms_have_no_threads_loops_or_sockets(files: list[File]) -> list[str]:
    return [
        file.complaint(
            each.line, f"a pure file imports {each.module}: whoever calls it waits, locks and sends"
        )
        for file in files
        if file.is_pure
        for each in imports(file)
        if (top := each.module.partition(".")[0]) in IMPURE_MODULES and (file.path, top) not in ADMITTED
    ]


def pure_rooms_take_time_and_chance_as_arguments(files: list[File]) -> list[str]:
    complaints = []
    for file in files:
        if not file.is_pure:
            continue
        known = _absolute_names(file)
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Call) and (called := _dotted(node.func, known)):
                if called.startswith("time.") or called in CLOCKS:
                    complaints.append(
                        file.complaint(node.lineno, f"{called}() reads the time; take it as an argument")
                    )
                elif _is_chance(called, node):
                    complaint = f"{called}() is chance of its own; take a random.Random as an argument"
                    complaints.append(file.complaint(node.lineno, complaint))
    return complaints


def _is_chance(called: str, node: ast.Call) -> bool:
    """Is this a draw from a generator that the caller did not give? ``random.Random(seed)`` is not."""
    if called == "random.Random":
        return not (node.args or node.keywords)
    return called.startswith(("random.", "secrets.")) or called in CHANCE


def _absolute_names(file: File) -> dict[str, str]:
    """Local name -> what was imported under it: ``import time as t`` gives t -> time."""
    known = {}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def _dotted(node: ast.expr, known: dict[str, str]) -> str | None:
    """The absolute dotted name of an expression, if it begins with something imported."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value, known)):
        return f"{base}.{node.attr}"
    return None


def files_stay_short(files: list[File]) -> list[str]:
    return [
        file.complaint(lines, f"{lines} lines; at most {MAX_LINES}: one idea per file")
        for file in files
        if (lines := len(file.source.splitlines())) > MAX_LINES
    ]


def all_of_a_package_is_sorted(files: list[File]) -> list[str]:
    complaints = []
    for file in files:
        if not file.path.endswith("__init__.py"):
            continue
        for node in file.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                continue
            try:
                names = list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
            except ValueError:
                complaints.append(file.complaint(node.lineno, "__all__ is not a plain list of strings"))
                continue
            wanted = sorted(set(names))
            if names != wanted:
                complaints.append(file.complaint(node.lineno, f"__all__ is not sorted; it would be {wanted}"))
    return complaints


def nothing_imports_in_a_circle(files: list[File]) -> list[str]:
    """Imports inside functions count, those for type checkers alone do not."""
    by_module = {file.module: file for file in files}
    edges: dict[str, dict[str, int]] = {module: {} for module in by_module}
    for module, file in by_module.items():
        for each in imports(file):
            if not each.at_run_time:
                continue
            inner = f"{each.module}.{each.name}"
            target = inner if inner in by_module else each.module
            if target in by_module and target != module:
                edges[module].setdefault(target, each.line)
    complaints = []
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            circle = [*trail[trail.index(module) :], module]
            line = edges[circle[0]][circle[1]]
            complaints.append(
                by_module[module].complaint(line, f"imports in a circle: {' -> '.join(circle)}")
            )
        elif module not in finished:
            for target in sorted(edges[module]):
                visit(target, [*trail, module])
            finished.add(module)

    for module in sorted(edges):
        visit(module, [])
    return complaints


Law = Callable[[list[File]], list[str]]

LAWS: list[Law] = [
    rooms_import_downwards,
    pure_rooms_have_no_threads_loops_or_sockets,
    pure_rooms_take_time_and_chance_as_arguments,
    files_stay_short,
    all_of_a_package_is_sorted,
    nothing_imports_in_a_circle,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps_the_law(law: Law) -> None:
    complaints = law(house())
    assert not complaints, f"{law.__name__}:\n" + "\n".join(complaints)


def test_the_pure_files_exist() -> None:
    """A renamed file must not slip out of the list."""
    assert {file.path for file in house()} >= PURE_FILES | {path for path, _ in ADMITTED}


def test_every_room_exists_and_every_folder_is_a_room() -> None:
    found = {file.room for file in house()}
    assert found == set(ALLOWED)


# --- negative controls: each law, broken, complains ------------------------------------------------------------------

BROKEN: list[tuple[str, Law, dict[str, str]]] = [
    ("upwards, relative", rooms_import_downwards, {"model/x.py": "from ..registry.keys import Keys"}),
    ("upwards, absolute", rooms_import_downwards, {"balancing/x.py": "import discoclient.calling.flow"}),
    ("upwards, a room by name", rooms_import_downwards, {"registry/x.py": "from .. import control"}),
    (
        "upwards, from a subfolder",
        rooms_import_downwards,
        {"registry/etcd/x.py": "from ...control import loop"},
    ),
    (
        "upwards, in a function",
        rooms_import_downwards,
        {"model/x.py": "def f():\n    from .. import registry"},
    ),
    (
        "upwards, for types alone",
        rooms_import_downwards,
        {"model/x.py": "if TYPE_CHECKING:\n    from ..registry.keys import Keys"},
    ),
    ("sideways", rooms_import_downwards, {"calling/x.py": "from ..registry.keys import Keys"}),
    ("a door from inside", rooms_import_downwards, {"control/x.py": "from discoclient import connect"}),
    ("the package itself", rooms_import_downwards, {"control/x.py": "import discoclient"}),
    ("the client serves", rooms_import_downwards, {"client.py": "from .serving.registrar import Registrar"}),
    ("a room nobody drew", rooms_import_downwards, {"helpers/x.py": ""}),
    ("asyncio", pure_rooms_have_no_threads_loops_or_sockets, {"model/x.py": "import asyncio"}),
    (
        "threading",
        pure_rooms_have_no_threads_loops_or_sockets,
        {"balancing/x.py": "from threading import Lock"},
    ),
    ("socket", pure_rooms_have_no_threads_loops_or_sockets, {"registry/codec.py": "import socket"}),
    (
        "subprocess, late",
        pure_rooms_have_no_threads_loops_or_sockets,
        {"serving/keeper.py": "def f():\n    import subprocess"},
    ),
    (
        "a submodule",
        pure_rooms_have_no_threads_loops_or_sockets,
        {"calling/x.py": "import concurrent.futures"},
    ),
    (
        "more than a lock",
        pure_rooms_have_no_threads_loops_or_sockets,
        {"balancing/endpoint.py": "import threading\nimport socket"},
    ),
    (
        "the time",
        pure_rooms_take_time_and_chance_as_arguments,
        {"model/x.py": "import time\ntime.monotonic()"},
    ),
    (
        "the time, renamed",
        pure_rooms_take_time_and_chance_as_arguments,
        {"calling/x.py": "from time import monotonic as now\ndef f():\n    return now()"},
    ),
    (
        "the date",
        pure_rooms_take_time_and_chance_as_arguments,
        {"model/x.py": "from datetime import UTC, datetime\ndatetime.now(UTC)"},
    ),
    (
        "chance",
        pure_rooms_take_time_and_chance_as_arguments,
        {"balancing/x.py": "import random\nrandom.choice([1])"},
    ),
    (
        "chance, by name",
        pure_rooms_take_time_and_chance_as_arguments,
        {"registry/machine.py": "from random import uniform\nuniform(0, 1)"},
    ),
    (
        "an unseeded generator",
        pure_rooms_take_time_and_chance_as_arguments,
        {"balancing/x.py": "from random import Random\nRandom()"},
    ),
    ("an id", pure_rooms_take_time_and_chance_as_arguments, {"model/x.py": "import uuid\nuuid.uuid4()"}),
    ("too long", files_stay_short, {"model/x.py": "x = 1\n" * (MAX_LINES + 1)}),
    ("unsorted", all_of_a_package_is_sorted, {"__init__.py": "__all__ = ['b', 'a']"}),
    ("twice", all_of_a_package_is_sorted, {"model/__init__.py": "__all__: list[str] = ['a', 'a']"}),
    ("computed", all_of_a_package_is_sorted, {"__init__.py": "__all__ = [name for name in dir()]"}),
    (
        "two",
        nothing_imports_in_a_circle,
        {"model/a.py": "from .b import x", "model/b.py": "from .a import y"},
    ),
    (
        "three, one of them late",
        nothing_imports_in_a_circle,
        {
            "model/a.py": "from . import b",
            "model/b.py": "import discoclient.model.c",
            "model/c.py": "def f():\n    from discoclient.model import a",
        },
    ),
    (
        "through the package's own face",
        nothing_imports_in_a_circle,
        {"model/__init__.py": "from .a import x", "model/a.py": "from . import y"},
    ),
]


@pytest.mark.parametrize(("law", "sources"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_law_is_noticed_with_its_place(law: Law, sources: dict[str, str]) -> None:
    complaints = law([parse(path, source) for path, source in sources.items()])
    assert complaints
    assert all(complaint.startswith(f"{PACKAGE}/") for complaint in complaints)
    assert all(complaint.split(":")[1].isdigit() for complaint in complaints)


KEPT: list[tuple[str, Law, dict[str, str]]] = [
    (
        "downwards",
        rooms_import_downwards,
        {"transport/x.py": "from ..calling.flow import f\nfrom . import pool\nimport httpx"},
    ),
    ("a room by name", rooms_import_downwards, {"calling/x.py": "from .. import balancing"}),
    ("within a room", rooms_import_downwards, {"registry/etcd/x.py": "from ..protocol import Entry"}),
    ("doors see all", rooms_import_downwards, {"asgi.py": "from .serving import x\nfrom .client import y"}),
    (
        "the lock",
        pure_rooms_have_no_threads_loops_or_sockets,
        {"balancing/endpoint.py": "from threading import Lock"},
    ),
    (
        "an edge is no pure file",
        pure_rooms_have_no_threads_loops_or_sockets,
        {"registry/memory.py": "import asyncio"},
    ),
    (
        "a generator from outside",
        pure_rooms_take_time_and_chance_as_arguments,
        {"balancing/x.py": "from random import Random\ndef f(rng: Random):\n    Random(1)\n    rng.random()"},
    ),
    ("just short enough", files_stay_short, {"model/x.py": "x = 1\n" * MAX_LINES}),
    ("sorted", all_of_a_package_is_sorted, {"__init__.py": "__all__ = ['A', 'B_', '__version__', 'a']"}),
    (
        "for types alone",
        nothing_imports_in_a_circle,
        {
            "model/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import x",
            "model/b.py": "from .a import y",
        },
    ),
    (
        "a face over its files",
        nothing_imports_in_a_circle,
        {
            "model/__init__.py": "from .a import x\nfrom .b import y",
            "model/a.py": "from .b import y",
            "model/b.py": "",
        },
    ),
]


@pytest.mark.parametrize(("law", "sources"), [case[1:] for case in KEPT], ids=[case[0] for case in KEPT])
def test_a_law_that_is_kept_gives_no_complaint(law: Law, sources: dict[str, str]) -> None:
    assert law([parse(path, source) for path, source in sources.items()]) == []
