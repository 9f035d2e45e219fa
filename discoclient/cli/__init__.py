"""The command line: ``disco``. It talks to people, and through ``--json`` to scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``disco`` with *argv* (default: this process's arguments), and return its exit code."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        print(
            f"disco: the command line needs {' and '.join(missing)}: pip install 'discoclient[cli]'",
            file=sys.stderr,
        )
        return 2
    try:
        from .app import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130  # as shells say it: 128 and the signal's number
