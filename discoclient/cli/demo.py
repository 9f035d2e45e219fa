"""``disco demo``: a real etcd, real services, real callers, and what they survive."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console

from ..dev import EtcdFailed, EtcdNotFound
from ..model.errors import DiscoError
from .demo_findings import as_json as to_json
from .demo_findings import claims
from .demo_print import Printer
from .demo_scene import Plan
from .demo_stage import Interrupted, Interruption, Stage
from .demo_story import Story
from .errors import Failure, explain
from .output import emit_json, remark

__all__ = ["Plan", "run_demo"]

WIDTH = 100
"""Columns where there is no terminal to ask."""


def run_demo(*, as_json: bool = False, plan: Plan | None = None, console: Console | None = None) -> int:
    """Play the demo, and tell it as it happens.

    It ends by itself, in some 30 s, and leaves nothing behind: no process, no folder. Nothing of it meets other services: the
    registry is its own.

    Args:
        as_json: at the end, one JSON object on standard output; the story goes to standard error then.
        plan: how long and how hard. Default: as `Plan` has it.
        console: where the story goes. Default: standard output.

    Returns:
        The exit code: 0 if every claim held; 1 if one did not, or if the demo could not be played; 128 and the signal's
        number (130, 143) if Ctrl-C or SIGTERM ended it.
    """
    console = console or _console(to_stderr=as_json)
    printer = Printer(console)
    began = monotonic()
    interruption = Interruption()
    try:
        with interruption.heeded(), _own_environment():
            try:
                with Stage(interruption) as stage:
                    findings = Story(stage, printer, plan or Plan()).play()
            finally:
                printer.close()
    except Interrupted as interrupted:
        remark(f"the demo was ended by {interrupted}; what it had started is gone")
        return 128 + interrupted.number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (DiscoError, EtcdFailed, EtcdNotFound, Failure, OSError) as error:
        said, code = explain(error)
        remark(said)
        return code
    seconds = monotonic() - began
    found = claims(findings)
    printer.judge(found, seconds)
    if as_json:
        emit_json(to_json(findings) | {"seconds": round(seconds, 3)})
    return 0 if all(claim.held for claim in found) else 1


def _console(*, to_stderr: bool) -> Console:
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=to_stderr, highlight=False, width=WIDTH)
    return console


@contextmanager
def _own_environment() -> Iterator[None]:
    """While the demo plays, settings for somebody's real services don't apply: nothing of it may go there."""
    aside = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("DISCO_OVERRIDE_")}
    try:
        yield
    finally:
        os.environ.update(aside)
