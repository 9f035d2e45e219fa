"""What a caller says per request, ``extensions={"disco": {...}}``, and what a response says: ``extensions["disco"]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import httpx

from ..calling.flow import Call
from ..model.errors import ConfigError
from ..model.instance import Instance

__all__ = ["DiscoOptions", "Routed", "read_call"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, 9.2.2."""


class DiscoOptions(TypedDict, total=False):
    """Options for one request. An unknown one is an error.

    ``retries``: how many attempts may follow the first, in place of the policy's. ``exclude``: ids of instances that the
    request must not go to.
    """

    retries: int
    exclude: Iterable[str]


@dataclass(frozen=True, slots=True)
class Routed:
    """Who answered: ``instance``; after how many ``attempts``; picked from the service's snapshot at ``revision``."""

    instance: Instance
    attempts: int
    revision: int


def read_call(request: httpx.Request) -> Call:
    """What the flow needs to know of *request*. Raises `ConfigError` for options that don't exist."""
    options = request.extensions.get("disco")
    is_idempotent = request.method in IDEMPOTENT
    is_replayable = isinstance(request.stream, httpx.ByteStream)
    if options is None:
        return _CALLS[is_idempotent, is_replayable]
    valid = ", ".join(sorted(DiscoOptions.__annotations__))
    if not isinstance(options, Mapping):
        raise ConfigError(f"extensions['disco'] must be a dict of options; the options are {valid}")
    unknown = sorted(map(repr, options.keys() - DiscoOptions.__annotations__.keys()))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]} in extensions['disco']; the options are {valid}")
    retries = options.get("retries")
    if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
        raise ConfigError(
            f"extensions['disco']['retries'] must be a whole number, 0 or more; got {retries!r}"
        )
    exclude = options.get("exclude", ())
    ids = tuple(exclude) if isinstance(exclude, Iterable) and not isinstance(exclude, str) else (None,)
    if not all(isinstance(id, str) for id in ids):
        raise ConfigError("extensions['disco']['exclude'] must be a collection of instance ids")
    return Call(is_idempotent, is_replayable, frozenset(ids), retries)


_CALLS = {(one, other): Call(one, other) for one in (True, False) for other in (True, False)}
