"""Many ``disco run`` with one start of the interpreter: ``python -m benchmarks.deploy_template SAID PLAN``

Sixteen hosts start sixteen interpreters, each on processors of its own. A machine that plays sixteen hosts would measure how
it starts sixteen interpreters on two cores. So this process imports what ``disco run`` imports, says that it is ready, and
when its input ends it forks once for each entry of PLAN (a JSON object: the arguments of ``disco`` by the name of the host).
What runs in the forks is ``disco run``, whole; what it says is appended to the file SAID. When all of them have ended, it
prints a JSON object: for each name, when (`monotonic`) and with which exit code.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from time import monotonic

import discoclient.cli.app  # noqa: F401 - so that the forks have it
from discoclient.cli import main as disco

__all__ = ["fork_all"]

_PR_SET_PDEATHSIG = 1


def fork_all(plan: dict[str, list[str]], said: str) -> dict[int, str]:
    """Start one fork for each name; the names by pid. In a fork this does not return."""
    parent, names = os.getpid(), {}
    for name, arguments in plan.items():
        pid = os.fork()
        if pid == 0:
            _become(parent, arguments, said)
        names[pid] = name
    return names


def _become(parent: int, arguments: list[str], said: str) -> None:
    code: int | str | None = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before that
            os._exit(1)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = disco(arguments)
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    said, plan = sys.argv[1:]
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.read()
    names = fork_all(json.loads(plan), said)
    ended = {}
    while names:
        pid, status = os.wait()
        ended[names.pop(pid)] = (monotonic(), os.waitstatus_to_exitcode(status))
    print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
