"""How another process of ours is started: the same program, by the same interpreter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import disco_sidecar

__all__ = ["program"]


def program(arguments: Sequence[str]) -> list[str]:
    """The command line for *arguments*.

    A file in the current folder must not stand in for a module of the same name, as ``python -m`` would have it; unless that
    is where we come from ourselves.
    """
    home = Path(disco_sidecar.__file__).resolve().parents[1]
    safe = [] if home == Path.cwd() else ["-P"]
    return [sys.executable, *safe, "-m", "disco_sidecar", *arguments]
