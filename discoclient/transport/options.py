"""What a caller says per request, ``extensions={"disco": {...}}``, and what a response says: ``extensions["disco"]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

import httpx

from ..balancing.picker import HashKey
from ..calling.steps import Call
from ..model.errors import ConfigError
from ..model.events import CallInfo
from ..model.instance import Instance
from ..model.policy import check_seconds

__all__ = ["NO_CALL", "DiscoOptions", "Routed", "mark", "read_call", "without_ours"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, 9.2.2."""


class DiscoOptions(TypedDict, total=False):
    """Options for one request. An unknown one is an error.

    ``deadline``: seconds from now that the whole call may take: all attempts, the waits between them, and the body. A
    redirect that is followed is another call.
    ``hash_key``: a string, bytes or a whole number; with the balancer ``rendezvous`` equal keys go to the same instance.
    ``retries``: how many attempts may follow the first, in place of the policy's.
    ``version``: the only version that the request may go to.
    ``exclude``: ids of instances that the request must not go to.
    """

    deadline: float
    hash_key: HashKey
    retries: int
    version: str
    exclude: Iterable[str]


class Routed(NamedTuple):
    """Who answered: ``instance``; after how many ``attempts``; picked from the service's snapshot at ``revision``."""

    instance: Instance
    attempts: int
    revision: int


_WHOLE = "disco_whole"


def mark(request: httpx.Request, *, is_whole: bool) -> None:
    """Have the transport know whether the caller gets *request*'s response with its body or as a stream.

    A body that is wanted whole is read as part of the attempt: nothing is handed over before all is there, so that one that
    breaks off is an attempt that failed, and may be made again elsewhere. Redirects keep the mark.
    """
    if is_whole:
        request.extensions[_WHOLE] = True
    else:
        request.extensions.pop(_WHOLE, None)


def without_ours(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """What is the wire's of a request's *extensions*."""
    wires = dict(extensions)
    wires.pop("disco", None)
    wires.pop(_WHOLE, None)
    return wires


def read_call(
    request: httpx.Request, now: float, *, deadline: float | None = None, info: CallInfo | None = None
) -> Call:
    """What the flow needs to know of *request*, with the client's *deadline* in seconds if it has none of its own.

    Raises `ConfigError` for options that don't exist.
    """
    options = request.extensions.get("disco")
    is_idempotent = request.method in IDEMPOTENT
    is_replayable = isinstance(request.stream, httpx.ByteStream)
    is_whole = _WHOLE in request.extensions
    if options is None:
        if deadline is None and info is None:
            return _CALLS[is_idempotent, is_replayable, is_whole]
        until = None if deadline is None else now + deadline
        return Call(is_idempotent, is_replayable, deadline=until, info=info, is_whole=is_whole)
    _check_names(options)
    seconds = options.get("deadline", deadline)
    if seconds is not None:
        seconds = check_seconds("extensions['disco']['deadline']", seconds, zero=True)
    retries, key, version = options.get("retries"), options.get("hash_key"), options.get("version")
    if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
        raise ConfigError(
            f"extensions['disco']['retries'] must be a whole number, 0 or more; got {retries!r}"
        )
    if key is not None and (not isinstance(key, str | bytes | int) or isinstance(key, bool)):
        raise ConfigError(
            f"extensions['disco']['hash_key'] must be a string, bytes or a whole number; got {key!r}"
        )
    if version is not None and not isinstance(version, str):
        raise ConfigError(f"extensions['disco']['version'] must be a version's name; got {version!r}")
    exclude = options.get("exclude", ())
    ids = tuple(exclude) if isinstance(exclude, Iterable) and not isinstance(exclude, str) else (None,)
    if not all(isinstance(id, str) for id in ids):
        raise ConfigError("extensions['disco']['exclude'] must be a collection of instance ids")
    return Call(
        is_idempotent,
        is_replayable,
        exclude=frozenset(ids),
        retries=retries,
        deadline=None if seconds is None else now + seconds,
        key=key,
        version=version,
        info=info,
        is_whole=is_whole,
    )


def _check_names(options: object) -> None:
    valid = ", ".join(sorted(DiscoOptions.__annotations__))
    if not isinstance(options, Mapping):
        raise ConfigError(f"extensions['disco'] must be a dict of options; the options are {valid}")
    unknown = sorted(map(repr, options.keys() - DiscoOptions.__annotations__.keys()))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]} in extensions['disco']; the options are {valid}")


NO_CALL = Call(is_idempotent=True, is_replayable=True)
"""For those who only look."""

_CALLS = {
    (idempotent, replayable, whole): Call(idempotent, replayable, is_whole=whole)
    for idempotent in (True, False)
    for replayable in (True, False)
    for whole in (True, False)
}
