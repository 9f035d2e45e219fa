"""What can go wrong on a connection of ours: one class for each of httpx's own exceptions, and without httpx.

::

    Failure
    ├── ConnectFailure         nothing was sent
    │   └── ConnectExpired
    ├── ReadFailure
    │   └── ReadExpired
    ├── WriteFailure
    │   └── WriteExpired
    ├── RemoteProtocolFailure  what came is no HTTP/1.1, or ended too early
    └── LocalProtocolFailure   what is to be sent is none
"""

from __future__ import annotations

__all__ = [
    "ConnectExpired",
    "ConnectFailure",
    "Failure",
    "LocalProtocolFailure",
    "ReadExpired",
    "ReadFailure",
    "RemoteProtocolFailure",
    "WriteExpired",
    "WriteFailure",
]


class Failure(Exception):
    """A connection could not do what was asked of it."""


class ConnectFailure(Failure):
    """There is no connection."""


class ConnectExpired(ConnectFailure):
    """There was none in time."""


class ReadFailure(Failure):
    """The connection broke while it was read."""


class ReadExpired(ReadFailure):
    """Nothing came in time."""


class WriteFailure(Failure):
    """The connection broke while it was written to."""


class WriteExpired(WriteFailure):
    """Nothing was taken in time."""


class RemoteProtocolFailure(Failure):
    """The service does not keep to HTTP/1.1, or closed before its response was complete."""


class LocalProtocolFailure(Failure):
    """The request does not keep to HTTP/1.1: it was not sent."""
