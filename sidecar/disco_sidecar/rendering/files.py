"""A file that is replaced in one step, and can be taken back until its reload went through.

Beside ``NAME`` stand, for a while, and hidden from an ``include *``:

=============================  ================================================================
``.NAME.disco-new``            the new file, while it is being written and checked
``.NAME.disco-old``            the file before, until the reload of the new one went through
``.NAME.disco-none``           in its place, if there was no file before
=============================  ================================================================

Whoever finds one of the last two knows that an earlier life ended between replacing and reloading.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from discoclient.model.errors import ConfigError

__all__ = ["Target"]


class Target:
    """The file that is kept up to date. A symbolic link is followed: what it points at is replaced, and the link stays."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises `ConfigError` if no file can be put there."""
        self.path = Path(os.path.realpath(path))
        folder, name = self.path.parent, self.path.name
        if not folder.is_dir():
            raise ConfigError(f"--out {path}: there is no folder {folder}")
        if self.path.exists() and not self.path.is_file():
            raise ConfigError(f"--out {path}: it is not a regular file")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--out {path}: no permission to write in {folder}")
        self.fresh = folder / f".{name}.disco-new"
        self._old = folder / f".{name}.disco-old"
        self._none = folder / f".{name}.disco-none"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Ours alone while the block lasts: two that keep one file up to date would put halves of each other's in place.

        Held is a name in the kernel's abstract namespace, which is given up with the process. Where there is none, nothing is
        held. Raises `ConfigError` if somebody else has it.
        """
        if sys.platform != "linux":
            yield
            return
        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=16).hexdigest()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
            try:
                holder.bind(f"\0disco-render-{digest}")
            except OSError as error:
                raise ConfigError(f"--out {self.path}: another disco render keeps it up to date") from error
            yield

    @property
    def is_unproven(self) -> bool:
        """Whether it was replaced, and nobody has said `settle` since."""
        return self._old.exists() or self._none.exists()

    def read(self) -> bytes | None:
        """What stands in it; ``None`` if it is not there."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Put *content* into the new file, with mode and owner of the present one. Raises `OSError`."""
        self.drop()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        before = self._stat()
        # Not readable for others, not even for a moment, if the present one isn't.
        with os.fdopen(os.open(self.fresh, flags, 0o666 if before is None else 0o600), "wb") as file:
            if before is not None:
                present = os.fstat(file.fileno())
                if (present.st_uid, present.st_gid) != (before.st_uid, before.st_gid):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self) -> None:
        """Put the new file in the place of the present one, in one step, and remember that one. Raises `OSError`."""
        if not self.is_unproven:  # else the last one that was proven is remembered already
            if self._stat() is None:
                self._none.touch()
            else:
                os.link(self.path, self._old)
        os.replace(self.fresh, self.path)
        self._sync()

    def take_back(self) -> None:
        """Put the one before back, or nothing if there was none. Raises `OSError`."""
        if self._old.exists():
            os.replace(self._old, self.path)
        elif self._none.exists():
            self.path.unlink(missing_ok=True)
            self._none.unlink()
        self._sync()

    def settle(self) -> None:
        """The present one is good: forget the one before."""
        for path in (self._old, self._none):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove the new file, if it is there. What prevents that prevents a new one as well, and is told then."""
        with suppress(OSError):
            self.fresh.unlink()

    def _stat(self) -> os.stat_result | None:
        try:
            return self.path.stat()
        except FileNotFoundError:
            return None

    def _sync(self) -> None:
        """Without this the name may still be the old one after a power cut."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
