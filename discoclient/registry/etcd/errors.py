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
from ..protocol import Untrusted

__all__ = ["NotSpoken", "TokenRefused", "is_about_certificates", "translate"]

_SAID = {
    "compacted": Status.OUT_OF_RANGE,
    "future revision": Status.OUT_OF_RANGE,
    "lease not found": Status.NOT_FOUND,
    "permission denied": Status.PERMISSION_DENIED,
    "invalid auth token": Status.UNAUTHENTICATED,
    "invalid user ID or password": Status.INVALID_ARGUMENT,
    "user name is empty": Status.INVALID_ARGUMENT,
}
"""What a member's words mean. A grpc-proxy passes these on, and not the status that came with them."""


class TokenRefused(RegistryUnavailable):
    """The member does not take our token (any more): it restarted, the token expired, or users or roles were changed
    since it was given out. Log in again.
    """


class NotSpoken(ConnectionError):
    """Somebody took the connection and did not answer as TLS or HTTP/2 has it. Its cause says what came instead."""

    def __init__(self, *, is_tls: bool) -> None:
        super().__init__("no handshake")
        self.is_tls = is_tls


def translate(error: BaseException, member: str) -> RegistryError:
    """*error*, from a call to *member*, as one of our own."""
    text = f"etcd {member}: {_describe(error)}"
    if not isinstance(error, GRPCError):
        return Untrusted(text) if is_about_certificates(error) else RegistryUnavailable(text)
    message = error.message or ""
    status = error.status
    if status is Status.UNKNOWN:
        status = next((meant for words, meant in _SAID.items() if words in message), status)
    match status:
        case Status.UNAUTHENTICATED:
            return TokenRefused(text)
        case Status.UNKNOWN | Status.INVALID_ARGUMENT if "auth" in message and "is old" in message:
            return TokenRefused(text)  # a signed token (JWT) is of one revision of the users and roles
        case Status.OUT_OF_RANGE if "compacted" in message or "future" in message:
            # Or not there yet, in a registry that was restored: list again, too.
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


def is_about_certificates(error: BaseException) -> bool:
    """Whether a certificate, theirs or ours, is what TLS failed for. That does not pass by itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return "CERTIFICATE" in reason or "UNKNOWN_CA" in reason


def _describe(error: BaseException) -> str:
    if isinstance(error, GRPCError):
        return f"{error.message or 'no message'} ({error.status.name})"
    if isinstance(error, NotSpoken):
        found = str(error.__cause__ or "") or "it closed the connection"
        if error.is_tls:
            return f"the TLS handshake failed, {found}: does it speak TLS? (without it, it is etcd://)"
        return f"it took the connection and spoke no HTTP/2, {found}: is it etcds://, with TLS?"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message} (ca= and server_name= say what is)"
    if isinstance(error, ssl.SSLError) and is_about_certificates(error):
        return f"it wants a client certificate that it knows (cert= and key=): {error.reason}"
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
