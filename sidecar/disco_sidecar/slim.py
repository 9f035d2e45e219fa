"""What this process has no use for is not loaded: some 15 MB, and 0.2 s at the start.

Two packages load more than they are asked for, and this is a process of our own: nobody else in it can miss what is left out.
httpx loads its command line with ``click``, ``rich`` and ``pygments``, if these are installed; etcd3 loads its client with
grpcio, where only the messages are wanted.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

__all__ = ["spare"]


def spare() -> None:
    """Before anything else is imported."""
    if "httpx" not in sys.modules:
        command_line = ModuleType("httpx._main")
        command_line.main = lambda: None  # type: ignore[attr-defined]
        sys.modules["httpx._main"] = command_line
    for package in ("etcd3", "etcd3.etcdrpc"):
        spec = find_spec(package) if package not in sys.modules else None
        if spec is None or spec.submodule_search_locations is None:
            return
        folder = ModuleType(package)
        folder.__path__ = list(spec.submodule_search_locations)
        folder.__spec__ = spec
        sys.modules[package] = folder
