"""What a failed call to etcd means: one table from gRPC's statuses and the wire's exceptions to ours."""

from __future__ import annotations

import asyncio
import ssl

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ...model.errors import (
    LeaseExpired,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    RevisionCompacted,
)

__all__ = ["TokenRefused", "translate"]


class TokenRefused(RegistryUnavailable):
    """The member does not take our token (any more): it restarted, the token expired, or users or roles were changed
    since it was given out. Log in again.
    """


def translate(error: BaseException, member: str) -> RegistryError:
    """*error*, from a call to *member*, as one of our own."""
    text = f"etcd {member}: {_describe(error)}"
    if not isinstance(error, GRPCError):
        return RegistryUnavailable(text)
    message = error.message or ""
    match error.status:
        case Status.UNAUTHENTICATED:
            return TokenRefused(text)
        case Status.UNKNOWN | Status.INVALID_ARGUMENT if "auth" in message and "is old" in message:
            return TokenRefused(text)  # a signed token (JWT) is of one revision of the users and roles
        case Status.OUT_OF_RANGE if "compacted" in message:
            return RevisionCompacted(text)
        case Status.NOT_FOUND if "lease" in message:
            return LeaseExpired(text)
        case Status.PERMISSION_DENIED:
            return RegistryDenied(text)
        case Status.INVALID_ARGUMENT if "user" in message or "auth" in message:
            return RegistryDenied(text)
        case (
            Status.UNAVAILABLE
            | Status.DEADLINE_EXCEEDED
            | Status.INTERNAL
            | Status.UNKNOWN
            | Status.CANCELLED
        ):
            return RegistryUnavailable(text)
    return RegistryError(text)


def _describe(error: BaseException) -> str:
    if isinstance(error, GRPCError):
        return f"{error.message or 'no message'} ({error.status.name})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message} (ca= and server_name= say what is)"
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        return f"it wants a client certificate that it knows (cert= and key=): {error.reason}"
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
