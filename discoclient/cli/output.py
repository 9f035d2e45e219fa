"""What people and scripts get to see: lines, tables and JSON on standard output, remarks on standard error.

Colours only on a terminal, and not if ``$NO_COLOR`` is set. A pipe gets the same lines without them.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from .errors import Failure

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "OutputClosed",
    "OutputMissing",
    "Segment",
    "STATE_STYLES",
    "align",
    "clean",
    "count",
    "emit",
    "emit_bytes",
    "emit_json",
    "emit_table",
    "is_output_closed",
    "remark",
]

Segment: TypeAlias = "str | tuple[str, str]"
"""A piece of a line, with its style if it has one: rich's names, such as ``green`` or ``bold red``."""

STATE_STYLES = {"ready": "green", "unready": "yellow", "draining": "cyan"}


class OutputClosed(Exception):
    """Nobody reads our standard output any more (``| head``): no mistake, and a reason to end."""


class OutputMissing(OutputClosed):
    """There is none from the start (``>&-``): what was asked for can't be given. `register`, which has more to do, goes on."""

    def __init__(self) -> None:
        super().__init__("there is no standard output to write to: it is closed")


def emit(*segments: Segment) -> None:
    """One line on standard output, at once."""
    console = _console(_stdout())
    if console is not None:
        from rich.text import Text

        console.print(Text.assemble(*segments), soft_wrap=True)
    else:
        _write("".join(segment if isinstance(segment, str) else segment[0] for segment in segments) + "\n")


def emit_json(value: Any) -> None:
    """One JSON value on a line of its own."""
    _write(json.dumps(value) + "\n")


def emit_bytes(chunk: bytes) -> None:
    """*chunk* on standard output, as it is."""
    out = _stdout().buffer
    try:
        out.write(chunk)
        out.flush()
    except OSError as error:
        raise _unwritable(error) from error


def emit_table(
    header: Sequence[str], rows: Sequence[Sequence[Segment]], *, right: Collection[str] = ()
) -> None:
    """Columns as wide as they need to be, never cut: a line may be longer than the terminal is wide."""
    lines: list[Sequence[Segment]] = [[(name, "bold") for name in header], *rows]
    numbers = {index for index, name in enumerate(header) if name in right}
    for line in align(lines, right=numbers):
        emit(*line)


def align(lines: Sequence[Sequence[Segment]], *, right: Collection[int] = ()) -> list[list[Segment]]:
    """*lines* with their cells padded to columns, two spaces apart; the columns in *right* are flush right."""
    texts = [[cell if isinstance(cell, str) else cell[0] for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    aligned = []
    for line, text in zip(lines, texts, strict=True):
        padded: list[Segment] = []
        for index, (cell, width) in enumerate(zip(line, widths, strict=True)):
            is_last = index == len(widths) - 1
            shown = text[index].rjust(width) if index in right else text[index].ljust(0 if is_last else width)
            padded.append(shown if isinstance(cell, str) else (shown, cell[1]))
            if not is_last:
                padded.append("  ")
        aligned.append(padded)
    return aligned


def remark(text: str, *, prefix: str = "disco: ") -> None:
    """One line on standard error, for people."""
    if sys.stderr is None:  # closed (``2>&-``); print() would take standard output instead
        return
    try:
        print(f"{prefix}{clean(text)}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it, which is no reason to fail
        pass


def clean(text: object) -> str:
    """*text* without what could steer a terminal: others write what we show."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def count(number: int, what: str) -> str:
    """``1 instance``, ``2 instances``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def is_output_closed() -> bool:
    """Whether the reader of our standard output has gone, without writing to it. Raises `OutputMissing`."""
    out = _stdout()
    try:
        poll = select.poll()
        poll.register(out.fileno(), 0)
    except (OSError, ValueError, AttributeError):
        # No descriptor, or a system without poll: writing will tell.
        return False
    return any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def _stdout() -> TextIO:
    if sys.stdout is None:  # as Python has it when it starts without a descriptor 1
        raise OutputMissing
    return sys.stdout


def _write(text: str) -> None:
    out = _stdout()
    try:
        out.write(text)
        out.flush()
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> Exception:
    try:  # what is still buffered would fail once more when the interpreter ends, and be complained about
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    if isinstance(error, BrokenPipeError):
        return OutputClosed()
    return Failure(f"can't write to standard output: {error.strerror}")


@cache
def _console(stream: TextIO) -> Console | None:
    """rich's console for a terminal that may be coloured; ``None`` for all else."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None
    from rich.console import Console

    return Console(file=stream, highlight=False)
