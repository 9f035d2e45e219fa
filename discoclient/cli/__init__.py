"""The command line: ``disco``. It talks to people, and through ``--json`` to scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec

from .signals import until_begun

__all__ = ["main"]

_UNTIL_STOPPED = ("dev", "register", "render", "watch")
"""The commands for which Ctrl-C and SIGTERM are the way to end, and no failure."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``disco`` with *argv* (default: this process's arguments), and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        with until_begun() if _command(arguments) in _UNTIL_STOPPED else nullcontext():
            return _run(arguments)
    except KeyboardInterrupt:
        return 130  # as shells say it: 128 and the signal's number


def _run(arguments: Sequence[str]) -> int:
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        print(
            f"disco: the command line needs {' and '.join(missing)}: pip install 'discoclient[cli]'",
            file=sys.stderr,
        )
        return 2
    from .app import run

    return run(arguments)


def _command(arguments: Sequence[str]) -> str | None:
    """The command in *arguments*, before anybody has parsed them."""
    words = iter(arguments)
    for word in words:
        if word == "--registry":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None
