"""Child processes that are ours: started so that they die with us, ended by the pid that we recorded."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TypeAlias

from .waiting import wait_until

__all__ = ["Process", "Stream", "end", "is_stopped", "pause", "send", "spawn"]

Process: TypeAlias = "subprocess.Popen[bytes]"
Stream: TypeAlias = "int | IO[bytes] | None"
"""``None``: our own."""

_SHIM = Path(__file__).with_name("_spawn.py")
_ORPHAN_TIMEOUT = 2.0


def spawn(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
    orphaned: signal.Signals = signal.SIGKILL,
    listener: int | None = None,
) -> Process:
    """Start *command*. The kernel sends it *orphaned* when this process is gone, however it goes.

    *listener*: the descriptor of a listening socket to hand over, by systemd's convention.

    It runs in a session of its own, so that a Ctrl-C at the terminal reaches us alone and we decide in which order
    things end.

    The kernel's promise is about the *thread* that starts the child: its children are killed when it ends,
    even if the process lives on. So every child is started by one thread of ours that never ends, whoever
    calls.
    """
    handed = "-" if listener is None else str(listener)
    shim = [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), str(int(orphaned)), handed]
    return _spawner.call(
        lambda: subprocess.Popen(
            [*shim, *(os.fspath(word) for word in command)],
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=() if listener is None else (listener,),
        )
    )


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to the process and to what it started in its session. False if it had ended already."""
    # poll() reaps: while it says None the pid is still the process's own, and so is the group of that number.
    if process.poll() is not None:
        return False
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        # Between fork and setsid there is no such group yet.
        process.send_signal(number)
    return True


def end(process: Process, *, grace: float) -> int:
    """SIGTERM, *grace* seconds, SIGKILL. Returns the exit code when the process is gone, paused or not."""
    if grace > 0 and send(process, signal.SIGTERM):
        send(process, signal.SIGCONT)
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
    send(process, signal.SIGKILL)
    return process.wait()


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has reached every thread of the process. True where there is no ``/proc`` to ask."""
    if sys.platform != "linux":
        return True
    try:
        return all(_state(task / "stat") in "Tt" for task in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False


def _state(stat: Path) -> str:
    # "pid (name) S ...": the name may hold spaces and parentheses.
    return stat.read_text().rpartition(")")[2].split()[0]


def pause(process: Process, *, timeout: float = 5.0) -> None:
    """SIGSTOP, and wait up to *timeout* seconds until it has taken effect in every thread."""
    if send(process, signal.SIGSTOP):
        wait_until(lambda: is_stopped(process.pid) or process.poll() is not None, timeout=timeout)


class _Spawner:
    """A thread that lives as long as the process, and starts children for all other threads."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As if nothing had been started: a forked child has neither the thread nor anybody to release the lock."""
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Process], Future[Process]]] | None = None

    def call(self, job: Callable[[], Process]) -> Process:
        future: Future[Process] = Future()
        with self._lock:
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                threading.Thread(
                    target=self._run, args=[self._jobs], name="disco-spawner", daemon=True
                ).start()
            self._jobs.put((job, future))
        try:
            return future.result()
        except BaseException:
            # A Ctrl-C while we waited: the child starts all the same, and nobody will know its pid. It has to be gone
            # before our caller cleans up, or it goes on writing where everything was just removed.
            is_gone = threading.Event()
            future.add_done_callback(_kill_orphan)
            future.add_done_callback(lambda started: is_gone.set())
            is_gone.wait(_ORPHAN_TIMEOUT)
            raise

    @staticmethod
    def _run(jobs: queue.SimpleQueue[tuple[Callable[[], Process], Future[Process]]]) -> None:
        while True:
            job, future = jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
                future.set_exception(error)
            del job, future


def _kill_orphan(started: Future[Process]) -> None:
    if started.exception() is None:
        end(started.result(), grace=0.0)


_spawner = _Spawner()
os.register_at_fork(after_in_child=_spawner.forget)
