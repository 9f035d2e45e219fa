"""Where the processes of one user on one host meet: a folder that is that user's alone, and in it a lock and a socket."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import socket
import stat
import tempfile
from pathlib import Path

from ..address import RegistryAddress
from .frames import VERSION
from .inheritance import disown, keep_from_children, while_no_fork

__all__ = ["Claim", "Place", "Unfit", "default_folder", "peer_of"]

LONGEST_PATH = 100
"""Bytes of a socket's path. The kernel's own limit is 107."""
BACKLOG = 256
_CREDENTIALS = 12  # bytes of Linux's struct ucred: pid, uid, gid


class Unfit(Exception):
    """Nothing can be shared here, and the text says why."""


def default_folder() -> Path:
    """``$XDG_RUNTIME_DIR/discoclient`` where there is such a folder of ours, else ``discoclient-<uid>`` among the temporary
    files.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        if os.path.isabs(runtime) and os.stat(runtime).st_uid == os.geteuid():
            return Path(runtime, "discoclient")
    except OSError:
        pass
    return Path(tempfile.gettempdir(), f"discoclient-{os.geteuid()}")


class Place:
    """The meeting place for one registry: its members, prefix, user and certificates, whatever else the address says.

    The password stands in no name: each side proves to the other that it has the same one (`proof`).
    """

    def __init__(self, address: RegistryAddress, folder: Path) -> None:
        self.folder = folder
        parts = [VERSION, os.geteuid(), address.scheme, sorted(address.members), address.prefix, address.user]
        parts += [address.ca, address.cert, address.key, address.server_name]
        self._name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        self._secret = hashlib.sha256(repr((address.user, address.password)).encode()).digest()

    @property
    def socket_path(self) -> Path:
        return self.folder / f"{self._name}.sock"

    @property
    def lock_path(self) -> Path:
        return self.folder / f"{self._name}.lock"

    def proof(self, nonce: str, whose: str) -> str:
        """That we have the password: ``whose`` is the side that says it."""
        return hmac.new(self._secret, f"{whose} {nonce}".encode(), "sha256").hexdigest()

    def claim(self) -> Claim | None:
        """The lock, if nobody holds it. Raises `Unfit`."""
        try:
            self._check_folder()
            for _ in range(5):
                try:
                    claim = self._try_claim()
                except FileNotFoundError:
                    self._check_folder()  # the last one who left removed it
                    continue
                if claim is None or claim.stands:
                    return claim
                claim.drop()  # who had it removed the file just before we got it: another one would make a new one
        except OSError as error:
            raise Unfit(f"{self.folder} can't be used: {error.strerror or error}") from error
        return None

    def connect(self) -> socket.socket:
        """A connection to whoever lends. Raises `OSError`, also where that is another user's process, and `Unfit`."""
        self._check_folder()
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with while_no_fork():
                connected.setblocking(False)
                connected.connect(self._address())
                keep_from_children(connected.fileno())
        except BaseException:
            connected.close()
            raise
        return connected

    def listen(self) -> socket.socket:
        """For who holds the lock. What a killed process left is replaced."""
        self.socket_path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with while_no_fork():
                listening.setblocking(False)
                listening.bind(self._address())
                keep_from_children(listening.fileno())
            listening.listen(BACKLOG)
        except BaseException:
            disown(listening.fileno())
            listening.close()
            raise
        return listening

    def _address(self) -> str:
        path = str(self.socket_path)
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise Unfit(f"the path {path} is too long for a socket")
        return path

    def _try_claim(self) -> Claim | None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with while_no_fork():
            descriptor = os.open(self.lock_path, flags, 0o600)
            keep_from_children(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _close(descriptor)
            return None
        except BaseException:
            _close(descriptor)
            raise
        return Claim(self, descriptor)

    def _check_folder(self) -> None:
        """Make it if it is not there. Raises `Unfit` if others could put something there, or read it."""
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise Unfit(f"{self.folder} can't be made: {error.strerror or error}") from error
        try:
            found = self.folder.lstat()
        except FileNotFoundError:
            return  # removed by the last one who left, just now; whoever opens something there sees it
        if not stat.S_ISDIR(found.st_mode):
            raise Unfit(f"{self.folder} is no folder")
        if found.st_uid != os.geteuid():
            raise Unfit(f"{self.folder} belongs to user {found.st_uid}, and not to us ({os.geteuid()})")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise Unfit(
                f"{self.folder} is open to others: its mode is {stat.S_IMODE(found.st_mode):04o}, not 0700"
            )


class Claim:
    """The lock, held by this process until `drop` or its end. A forked child does not hold it."""

    def __init__(self, place: Place, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor

    @property
    def stands(self) -> bool:
        """Whether the file that is locked is still the one of that name."""
        try:
            found = os.stat(self._place.lock_path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._descriptor))

    def drop(self) -> None:
        """Give the lock back."""
        _close(self._descriptor)

    def clear(self) -> None:
        """Give it back and leave nothing behind. Under the lock, so that nothing of a successor's is removed."""
        if self.stands:
            self._place.socket_path.unlink(missing_ok=True)
            self._place.lock_path.unlink(missing_ok=True)
        self.drop()
        try:
            self._place.folder.rmdir()
        except OSError:
            pass  # others meet there, too


def peer_of(connected: socket.socket) -> tuple[int, int] | None:
    """The pid and the uid of the process at the other end; ``None`` where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS)
    pid, uid, _ = memoryview(found).cast("i")
    return pid, uid


def _close(descriptor: int) -> None:
    disown(descriptor)
    os.close(descriptor)
