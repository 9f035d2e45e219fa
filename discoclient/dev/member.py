"""One etcd process, with the buttons that a fault test needs."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from ..system.listeners import Listener, find_owner, look_at
from ..system.process import Process, end, pause, send, spawn
from ..system.waiting import wait_until
from .binary import clean_environment
from .failures import EtcdFailed, ForeignListener
from .gateway import Gateway, answers_http
from .tls import TLSFiles

__all__ = ["EtcdMember", "MemberStatus"]

_PORT_TAKEN = "address already in use"


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What a member says about itself. ``leader_id`` is 0 while it knows of no leader, and may be out of date."""

    member_id: int
    leader_id: int
    raft_term: int
    revision: int
    version: str


class EtcdMember:
    """A member of a development cluster, made by `EtcdCluster`. Ports and data stay over restarts."""

    def __init__(
        self,
        *,
        name: str,
        command: tuple[str, ...],
        client_port: int,
        peer_port: int,
        data_dir: Path,
        log_path: Path,
        tls: TLSFiles | None = None,
    ) -> None:
        self.name = name
        self.command = command
        self.client_port = client_port
        self.peer_port = peer_port
        self.data_dir = data_dir
        self.log_path = log_path
        self.gateway = Gateway(client_port, tls=tls)
        self._process: Process | None = None
        self._log_start = 0
        self._is_wanted = False
        self._is_paused = False

    def __repr__(self) -> str:
        state = "paused" if self.is_paused else "running" if self.is_running else "not running"
        return f"<EtcdMember {self.name} at 127.0.0.1:{self.client_port}, pid {self.pid}, {state}>"

    @property
    def pid(self) -> int | None:
        """The pid of the process last started. None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_paused(self) -> bool:
        return self._is_paused and self.is_running

    @property
    def is_wanted(self) -> bool:
        """Whether it should be answering: it was started, and not stopped, killed or paused since."""
        return self._is_wanted and not self._is_paused

    def start(self, *, timeout: float = 10.0) -> None:
        """Start the process, again with the same ports and data, and wait *timeout* seconds until it listens.

        It listens before it has a quorum: whether it answers is `EtcdCluster.wait_healthy`'s question. Does
        nothing if it runs. Raises `ForeignListener` if somebody else has one of its ports, `EtcdFailed` if it
        does not come up.
        """
        self.spawn()
        self.wait_listening(timeout=timeout)

    def spawn(self) -> None:
        """Start the process, and do not wait."""
        if self.is_running:
            return
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = spawn(self.command, env=clean_environment(), stdout=log, stderr=log)
        self._is_wanted, self._is_paused = True, False

    def wait_listening(self, *, timeout: float) -> None:
        """Wait until *our process* listens on both ports. Raises as `start` does, and ends the process then."""
        try:
            listening = wait_until(self._is_listening, timeout=timeout)
            if not listening:
                raise EtcdFailed(f"{self.name} does not listen after {timeout:g} s\n{self.log_tail()}")
        except BaseException:
            self.kill()
            raise

    def wait_answering_peers(self, *, timeout: float) -> bool:
        """Whether the member answers other members within *timeout* seconds. It needs no quorum for that."""

        def is_answering() -> bool:
            self.raise_if_dead()
            return answers_http(self.peer_port, timeout=0.5)

        return wait_until(is_answering, timeout=timeout)

    def stop(self, *, grace: float = 10.0) -> None:
        """SIGTERM; SIGKILL if it is still there after *grace* seconds. Does nothing if it does not run.

        A leader hands its office over first. Where nobody is left to take it, etcd waits for that in vain,
        some 5 s.
        """
        self._is_wanted = False
        if self._process is not None:
            end(self._process, grace=grace)
        self._is_paused = False

    def terminate(self) -> None:
        """SIGTERM, and do not wait."""
        self._is_wanted = False
        if self._process is not None and send(self._process, signal.SIGTERM):
            # A paused process gets the signal only when it goes on.
            send(self._process, signal.SIGCONT)
            self._is_paused = False

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone. Does nothing if it does not run."""
        self.stop(grace=0.0)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers. Returns when every thread has stopped."""
        if self._process is not None and self.is_running:
            pause(self._process)
            self._is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            send(self._process, signal.SIGCONT)
        self._is_paused = False

    def wipe(self) -> None:
        """Remove the data. Raises `RuntimeError` while the process runs."""
        if self.is_running:
            raise RuntimeError(f"{self.name} is running: stop it before its data is removed")
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def status(self, *, timeout: float = 1.0) -> MemberStatus:
        """What the member says about itself, without asking the others. Raises `OSError` or `EtcdRefused`."""
        answer = self.gateway.call("/v3/maintenance/status", {}, timeout=timeout)
        header = answer["header"]
        return MemberStatus(
            member_id=int(header["member_id"]),
            leader_id=int(answer.get("leader", 0)),
            raft_term=int(header.get("raft_term", 0)),
            revision=int(header.get("revision", 0)),
            version=str(answer.get("version", "")),
        )

    def check_healthy(self, *, timeout: float) -> None:
        """Have the member answer a linearizable read within *timeout* seconds.

        Raises `OSError` or `EtcdFailed` if it does not.
        """
        self.raise_if_dead()
        self.gateway.read_linearizable(timeout=timeout)

    def raise_if_dead(self) -> None:
        """Raise `EtcdFailed` (or `ForeignListener`) if the process should be there and is not."""
        if not self._is_wanted or self._process is None:
            return
        code = self._process.poll()
        if code is None:
            return
        said = _read(self.log_path, start=self._log_start)
        if _PORT_TAKEN in said:
            for port in (self.client_port, self.peer_port):
                owner = find_owner(port)
                if owner is not None:
                    raise self._foreign(port, owner)
            raise ForeignListener(f"{self.name}: a port was taken\n{_ends(said)}", port=self.client_port)
        raise EtcdFailed(f"{self.name} ended with exit code {code}\n{_ends(said)}")

    def log_tail(self, lines: int = 20) -> str:
        """The last *lines* lines of the log."""
        return "\n".join(_read(self.log_path).splitlines()[-lines:])

    def _is_listening(self) -> bool:
        self.raise_if_dead()
        process = self._process
        if process is None:
            raise EtcdFailed(f"{self.name} was not started")
        found = []
        for port in (self.client_port, self.peer_port):
            who = look_at(port, process.pid)
            # Twice, because a process that is just ending still has a listener and no descriptors.
            if who is Listener.FOREIGN and look_at(port, process.pid) is Listener.FOREIGN:
                self.raise_if_dead()
                raise self._foreign(port, find_owner(port))
            found.append(who)
        return all(who is Listener.OURS for who in found)

    def _foreign(self, port: int, owner: int | None) -> ForeignListener:
        who = f"process {owner}" if owner is not None else "a process that we may not look at"
        return ForeignListener(
            f"{self.name}: 127.0.0.1:{port} is listened on by {who}, "
            f"not by the etcd that we started (process {self.pid}). If `etcd` is a script that starts "
            "the real one, let it `exec` it, or set $DISCO_ETCD_BIN to the real one",
            port=port,
            owner=owner,
        )


def _ends(text: str, *, first: int = 3, last: int = 20) -> str:
    """The first and the last lines: a flag that etcd does not know is complained of above 200 lines of help."""
    lines = text.splitlines()
    if len(lines) > first + last:
        lines = [*lines[:first], "...", *lines[-last:]]
    return "\n".join(lines)


def _read(path: Path, *, start: int = 0) -> str:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
