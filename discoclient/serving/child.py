"""The command under ``disco run``: started with its port, watched until it ends, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic, sleep

from ..system.family import Guardian, family, is_empty, marked, signal_group
from ..system.listeners import Listener, look_at
from ..system.notify import NotifySocket
from ..system.ports import pick_ports
from ..system.process import Process, spawn
from .doorway import Doorway, Way, forget_port, listen, read_port

__all__ = ["Child"]

LOOK_AGAIN = 0.02


class Child:
    """One process, and its process group. Its exit code is as a shell has it: 128 and more for signals."""

    def __init__(self, doorway: Doorway, host: str, *, stop_timeout: float) -> None:
        """*stop_timeout*: seconds between SIGTERM and SIGKILL, where nobody is left to count them but the guardian."""
        self._doorway = doorway
        self._host = host
        self._stop_timeout = stop_timeout
        self._process: Process | None = None
        self._guardian: Guardian | None = None
        self._mark = ""
        self._port = doorway.port if doorway.way is Way.TOLD else None
        if doorway.way is Way.TOLD and self._port is None:
            (self._port,) = pick_ports()
        self.notices: NotifySocket | None = None
        """Where it says that it is ready, if it was made to (`start`)."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int | None:
        """Where it listens, or is to; ``None`` while it has not said."""
        if self._port is None and self._doorway.port_file is not None:
            return read_port(self._doorway.port_file)
        return self._port

    def settle(self, port: int) -> None:
        """It was seen at *port*, and from now on it is there: the file may soon be another one's."""
        self._port = port

    def start(
        self, environment: Mapping[str, str], *, is_notified: bool, on_exit: Callable[[int], None]
    ) -> None:
        """Start it. *is_notified*: it gets a ``$NOTIFY_SOCKET``. *on_exit* gets its exit code, in another thread.

        Raises `OSError` if the socket to hand over can't be bound. A command that can't be run ends with 127, as in a shell.
        """
        doorway, listener = self._doorway, None
        if doorway.port_file is not None:
            forget_port(doorway.port_file)
        env = doorway.environment(self._port, {**os.environ, **environment})
        if is_notified:
            self.notices = NotifySocket()
            env["NOTIFY_SOCKET"] = self.notices.path
        if doorway.way is Way.HANDED:
            listener = _listen_somewhere(self._host, doorway.port or 0)
            self._port = listener.getsockname()[1]
        words = doorway.words(self._port if doorway.way is Way.TOLD else None)
        try:
            self._process = spawn(
                words,
                env=env,
                stdout=None,
                stderr=None,
                orphaned=signal.SIGTERM,
                listener=None if listener is None else listener.fileno(),
            )
        finally:
            # A socket that we held on to would take connections for a command that is dead, and keep callers waiting.
            if listener is not None:
                listener.close()
        self._mark = f"DISCO_INSTANCE={environment['DISCO_INSTANCE']}"
        self._guardian = Guardian(self.pid, grace=self._stop_timeout, mark=self._mark)
        threading.Thread(target=self._wait, args=[on_exit], name="disco-child", daemon=True).start()

    def is_taken(self) -> bool:
        """Whether somebody listens already where it is to listen."""
        if self._doorway.way is not Way.TOLD or self._port is None:
            return False
        try:
            return look_at(self._port, host=self._host) is Listener.FOREIGN
        except ValueError:  # a host name
            return False

    def look(self) -> Listener:
        """Whose the listener at its port is: another process there would be taken for it."""
        port = self.port
        if port is None:
            return Listener.NOBODY
        try:
            return look_at(port, *family(self.pid), host=self._host)
        except ValueError:  # a host name: whose it is can't be told
            return Listener.OURS

    def is_elsewhere(self) -> bool:
        """Whether it listens at its port on the loopback interface alone, and not where callers are to come."""
        port = self.port
        return port is not None and look_at(port, *family(self.pid)) is Listener.OURS

    def terminate(self) -> None:
        """SIGTERM, to the command itself: what it started it may want to end in its own way."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, to all of its process group."""
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Nothing of it is left when this returns: what it started and left behind is told to go, and is made to."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.kill()
            process.wait()
        if self._signal_all(signal.SIGTERM):
            ends = monotonic() + self._stop_timeout
            while monotonic() < ends and not (is_empty(process.pid) and not marked(self._mark)):
                sleep(LOOK_AGAIN)
            self._signal_all(signal.SIGKILL)
        if self._guardian is not None:
            self._guardian.dismiss()
        if self.notices is not None:
            self.notices.close()

    def _signal_all(self, number: signal.Signals) -> bool:
        """To all that the command started and left behind; whether there was anybody."""
        assert self._process is not None
        is_any = signal_group(self._process.pid, number)
        for pid in marked(self._mark):
            is_any = True
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return is_any

    def _wait(self, on_exit: Callable[[int], None]) -> None:
        assert self._process is not None
        code = self._process.wait()
        on_exit(code if code >= 0 else 128 - code)


def _listen_somewhere(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        if port:
            raise
        # An address that is not this machine's own, such as one that is translated on the way here.
        try:
            return listen("::" if ":" in host else "0.0.0.0", 0)
        except OSError:
            raise error from None
