"""The last known listing in a file, for a start while the registry is away. Opt-in.

One JSON object: a format, a version, a SHA-256 over the payload's bytes as they stand, and the payload. The checksum finds
damage, and no more. That nobody else wrote the file is known from its owner and mode; it decides where requests go.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import tempfile
from base64 import b64decode, b64encode
from glob import escape
from pathlib import Path
from typing import Any

from .address import RegistryAddress
from .protocol import Entry, Listing

__all__ = ["LastKnownFile", "last_known_path"]

logger = logging.getLogger("discoclient.registry")

VERSION = 1
MAX_BYTES = 64 * 1024 * 1024
"""Of a file: 100,000 instances with much metadata. More than that is not read, and not written."""
LEFTOVER_AGE = 300.0
"""Seconds after which a temporary file belongs to nobody: its writer would have renamed it within one."""

_HEAD = re.compile(
    rb'\{"format": "discoclient last known", "v": ([0-9]{1,9}), "sha256": "([0-9a-f]{64})", "payload": '
)
_TAIL = b"}\n"


def last_known_path(directory: str | os.PathLike[str], address: RegistryAddress, range: str) -> Path:
    """The file in *directory* for *range* of that registry.

    Its name begins with the service's, and ends in a hash of the registry and the range. User, password and the order of the
    members do not count: it is the same registry.
    """
    where = sorted(address.members) or str(address)
    identity = [address.scheme, where, address.name, address.prefix, range]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", range.rstrip("/").rpartition("/")[2]).strip("-")[:63]
    return Path(directory) / f"{readable or 'range'}-{digest[:16]}.json"


class _Unusable(Exception):
    """Why a file is not used. The message holds nothing of what is in it."""


class LastKnownFile:
    """One such file. Both methods do I/O and block, `save` for as long as the disk takes to have it; neither raises."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._is_failing = False

    def load(self) -> Listing | None:
        """What was saved last; ``None``, with a warning, if the file can't be trusted, and without one if there is none."""
        try:
            return _decode(self._read(), self._path.name)
        except FileNotFoundError:
            return None
        except Exception as error:
            logger.warning("last known instances in %s are not used: %s", self._path, _reason(error))
            return None

    def save(self, listing: Listing) -> None:
        """Replace the file, whole or not at all. Of failures in a row only the first is warned of."""
        try:
            data = _encode(listing, self._path.name)
            if len(data) > MAX_BYTES:
                raise _Unusable(f"{len(data)} bytes are more than {MAX_BYTES}")
            self._write(data)
        except Exception as error:
            if not self._is_failing:
                logger.warning("last known instances can't be saved to %s: %s", self._path, _reason(error))
            self._is_failing = True
        else:
            self._is_failing = False

    def _read(self) -> bytes:
        # Not blocking, because the path may be a FIFO; what is checked is what was opened, not what has the name by then.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _Unusable("it is not a regular file")
            if status.st_uid != os.geteuid():
                raise _Unusable("it belongs to another user")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _Unusable(f"others may write it (mode {stat.S_IMODE(status.st_mode):04o})")
            if status.st_size > MAX_BYTES:
                raise _Unusable(f"it has {status.st_size} bytes, more than {MAX_BYTES}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(status.st_size)  # no saved file grows
        finally:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        """To a temporary file beside it, then under its name.

        The folder's entry is not synced: after a power failure there is the old file or the new one, and both will do.
        """
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A new name each time, not one by pid: two containers that share a volume both have a process 1.
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".tmp", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                self._remove_leftovers(os.fstat(descriptor).st_mtime)  # first, for they may fill the disk
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _remove_leftovers(self, now: float) -> None:
        """Of writers that died in the middle. *now* is the file system's time: its clock need not be ours."""
        for path in self._path.parent.glob(f".{escape(self._path.name)}.*.tmp"):
            try:
                if path.lstat().st_mtime < now - LEFTOVER_AGE:
                    path.unlink()
            except OSError:
                pass  # somebody else was quicker, or it is somebody else's


def _encode(listing: Listing, name: str) -> bytes:
    payload = json.dumps(
        {
            "name": name,
            "revision": listing.revision,
            "entries": [
                {
                    "key": entry.key,
                    "value": b64encode(entry.value).decode(),
                    "create_revision": entry.create_revision,
                    "mod_revision": entry.mod_revision,
                    "lease": entry.lease,
                }
                for entry in listing.entries
            ],
        }
    ).encode()
    digest = hashlib.sha256(payload).hexdigest()
    head = f'{{"format": "discoclient last known", "v": {VERSION}, "sha256": "{digest}", "payload": '
    return head.encode() + payload + _TAIL


def _decode(data: bytes, name: str) -> Listing:
    head = _HEAD.match(data)
    if head is None:
        raise _Unusable("it does not begin as such a file does" if data else "it is empty")
    if int(head[1]) != VERSION:
        raise _Unusable(f"it has version {int(head[1])}, and this is version {VERSION}")
    payload = data[head.end() : -len(_TAIL)]
    if not data.endswith(_TAIL) or hashlib.sha256(payload).hexdigest().encode() != head[2]:
        raise _Unusable("the checksum is wrong: it is damaged or cut off")
    try:
        content = json.loads(payload)
        if content["name"] != name:
            raise _Unusable("it was saved under another name, for another service or registry")
        return Listing(_number(content["revision"]), tuple(map(_entry, content["entries"])))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise _Unusable("the checksum is right, and yet it is no listing") from error


def _entry(content: Any) -> Entry:
    key = content["key"]
    if not isinstance(key, str):
        raise TypeError("a key is text")
    return Entry(
        key,
        b64decode(content["value"], validate=True),
        _number(content["create_revision"]),
        _number(content["mod_revision"]),
        _number(content["lease"]),
    )


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("revisions and leases are whole numbers")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, _Unusable) else type(error).__name__
