"""The family of a process: what it started, and what that started, as ``/proc`` tells. And its end, all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Guardian", "family", "is_empty", "marked", "signal_group"]


def family(pid: int) -> set[int]:
    """*pid*, all that stem from it, and all of its session. Only *pid* where there is no ``/proc``."""
    found = {pid}
    if sys.platform != "linux":
        return found
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # "pid (name) state ppid pgrp session ...": the name may hold spaces and parentheses.
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone since
            continue
        parents[int(entry)] = int(fields[1])
        if int(fields[3]) == pid:
            found.add(int(entry))
    growing = True
    while growing:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        growing = bool(more)
    return found


def marked(mark: str) -> set[int]:
    """The processes whose environment has *mark*, ``NAME=value``, from their start on: whoever a child begot, in whatever
    session, unless it was given another environment. Empty where there is no ``/proc``.
    """
    found: set[int] = set()
    if sys.platform != "linux":
        return found
    wanted = mark.encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:  # gone since, or another user's
                continue
            if wanted in environment.split(b"\0"):
                found.add(int(entry))
    return found - {os.getpid()}


def signal_group(group: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; whether there was anybody."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # some of them have become another user
        return True
    return True


def is_empty(group: int) -> bool:
    """Whether nothing of the process group is left. What only waits to be reaped counts as left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


_SCRIPT = """
trap '' HUP INT TERM
read -r word && exit 0
all() {
    echo "-$1"
    grep -lzxF -- "$3" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}
send() { # to each by itself: one that is gone already must not keep it from the others
    number=$1
    shift
    is_any=1
    for target in $(all "$@"); do
        kill -s "$number" -- "$target" 2>/dev/null && is_any=0
    done
    return $is_any
}
send TERM "$@" || exit 0
tenths=$2
while [ "$tenths" -gt 0 ] && send 0 "$@"; do
    sleep 0.1
    tenths=$((tenths - 1))
done
send KILL "$@"
"""


_NO_MARK = "no mark"
"""No variable of any environment: a name has no space in it, and each has a value."""


class Guardian:
    """A small shell that ends a process group if we go without having dismissed it, whatever we died of.

    The kernel's parent-death signal reaches the child alone, and may be ignored. This reaches all that it started, also in
    sessions of their own if their environment has *mark* (see `marked`): SIGTERM, and *grace* seconds later SIGKILL.
    """

    def __init__(self, group: int, *, grace: float, mark: str | None = None) -> None:
        # A mask is inherited: until the shell has come to its trap, a service manager's signal to all of us would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
        try:
            tenths = str(max(0, round(grace * 10)))
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "disco-guardian", str(group), tenths, mark or _NO_MARK],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def dismiss(self) -> None:
        """All is well: it ends without doing anything."""
        pipe = self._shell.stdin
        if pipe is not None and not pipe.closed:
            try:
                pipe.write(b"dismissed\n")
                pipe.close()
            except OSError:  # it is gone
                pass
        self._shell.wait()
