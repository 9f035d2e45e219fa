"""From an exception to one line and an exit code: 1 failed, 2 wrong usage, 3 not ready, 4 the registry can't be reached."""

from __future__ import annotations

import httpx

from ..model.errors import ConfigError, DiscoError, DiscoveryTimeout, RegistryError

__all__ = ["FAILED", "NOT_READY", "UNREACHABLE", "USAGE", "Failure", "explain"]

FAILED = 1
USAGE = 2
NOT_READY = 3
UNREACHABLE = 4


class Failure(Exception):
    """Ends a command: one line for standard error, and the exit code (default 1)."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: Exception) -> tuple[str, int]:
    """The line for standard error, and the exit code."""
    from ..dev.binary import EtcdNotFound  # only now: most commands start without them
    from ..dev.failures import EtcdFailed

    match error:
        case Failure():
            return _line(error), error.code
        case ConfigError():
            return _line(error), USAGE
        case EtcdNotFound():
            return str(error), USAGE
        case RegistryError() | DiscoveryTimeout():
            return _line(error), UNREACHABLE
        case EtcdFailed():
            return str(error).splitlines()[0], FAILED  # what follows is the tail of etcd's log
        case httpx.HTTPError():
            return _line(error), FAILED
    return f"internal error: {_line(error)} (DISCO_LOG=debug shows where)", FAILED


def _line(error: Exception) -> str:
    """What *error* says, in one line, with its notes: those of a request tell of its earlier attempts."""
    text = " ".join(str(error).split())
    # Ours are sentences; others need their type to be understood.
    if not isinstance(error, Failure | DiscoError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return "; ".join([text, *getattr(error, "__notes__", ())])
