"""The folder of a development cluster's data, and what is left of clusters whose owner was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["DataFolder", "sweep"]

_PREFIX = "disco-etcd-"
_LOCK = "owner.lock"


class DataFolder:
    """A folder with a lock that is held as long as its owner lives.

    The lock is the kernel's (``flock``): it goes with the owner however the owner goes, and so says of a
    folder that is found later whether anybody still uses it; a pid in a file could not, because pids come
    back.
    """

    def __init__(self, path: Path, *, is_temporary: bool, lock: int) -> None:
        self.path = path
        self.is_temporary = is_temporary
        self._lock = lock

    @classmethod
    def temporary(cls) -> DataFolder:
        """A new folder where temporary files belong. What killed owners left there is removed first."""
        sweep()
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            # Locked under another name first: from the moment that a sweeper can see the lock, it is held.
            fresh = path / f"{_LOCK}.new"
            lock = _lock_file(fresh)
            assert lock is not None, "a file that was made just now is locked by somebody else"
            fresh.rename(path / _LOCK)
            return cls(path, is_temporary=True, lock=lock)
        except BaseException:  # a Ctrl-C just now: nobody else knows of the folder
            shutil.rmtree(path, ignore_errors=True)
            raise

    @classmethod
    def kept(cls, path: Path) -> DataFolder:
        """A folder of the user's that stays. Raises `BlockingIOError` if another cluster uses it."""
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(path / _LOCK)
        if lock is None:
            raise BlockingIOError(f"{path} is in use by another cluster")
        return cls(path, is_temporary=False, lock=lock)

    def close(self) -> None:
        """Let go of the folder, and remove it if it is temporary. Calling it again does nothing."""
        if self._lock < 0:
            return
        if self.is_temporary:
            _remove(self.path)
        os.close(self._lock)
        self._lock = -1


def sweep() -> list[Path]:
    """Remove temporary folders of this user whose owner is gone, and say which."""
    removed = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if path.is_symlink() or path.stat().st_uid != os.geteuid() or not (path / _LOCK).is_file():
                continue
            lock = _lock_file(path / _LOCK)
        except OSError:  # somebody else sweeps too
            continue
        if lock is not None:
            _remove(path)
            os.close(lock)
            removed.append(path)
    return removed


def _lock_file(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if somebody else holds it. Not inherited by children."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path) -> None:
    # The lock goes last: if something else cannot be removed now, the next sweep still recognises the folder.
    for entry in _entries(path):
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if all(entry.name == _LOCK for entry in _entries(path)):
        shutil.rmtree(path, ignore_errors=True)


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except FileNotFoundError:  # another sweeper was faster
        return []
