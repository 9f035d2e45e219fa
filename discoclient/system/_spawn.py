"""Become another program that dies when our parent dies.

Run by path as ``python -I -S _spawn.py PARENT_PID SIGNAL LISTENER COMMAND...``, between the parent and the command; it ends
in an ``exec``, so that the command has the pid that the parent knows. A program of its own, because the
alternative, a ``preexec_fn``, runs Python between fork and exec and can deadlock in a program that has
threads. It imports nothing of ours, and little of Python's.

LISTENER is a descriptor to hand over as systemd does (``sd_listen_fds(3)``): as number 3, with the command's own pid in
``$LISTEN_PID``, which only we can know before it runs. ``-`` stands for none.

The kernel ties the signal to the *thread* that started us, not to its process: see
`discoclient.system.process.spawn`, which starts everything from a thread that lives as long as the process.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Exec ``arguments[3:]``, to get a signal when our parent, whose pid is ``arguments[0]``, goes.

    Returns only on failure.
    """
    parent, number, listener, command = int(arguments[0]), int(arguments[1]), arguments[2], arguments[3:]
    if sys.platform == "linux":
        _die_with_parent(number)
        # The parent may have died before the line above: then nobody will tell us any more.
        if os.getppid() != parent:
            return 1
    # What an exec does not reset: Python ignores SIGPIPE, and a mask is inherited from whichever thread
    # spawned us. A program that starts with SIGTERM blocked cannot be stopped nicely.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if listener != "-":
        _hand_over(int(listener))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def _hand_over(listener: int) -> None:
    first = 3  # SD_LISTEN_FDS_START
    if listener != first:
        os.dup2(listener, first, inheritable=True)
        os.close(listener)
    os.set_inheritable(first, True)
    os.environ["LISTEN_FDS"] = "1"
    os.environ["LISTEN_PID"] = str(os.getpid())


def _die_with_parent(number: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
