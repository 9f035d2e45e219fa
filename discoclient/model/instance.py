"""An instance: what the registry told us about one process of a service. Immutable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from .errors import ConfigError

__all__ = [
    "ID_PATTERN",
    "NAMELESS",
    "SCHEMA_VERSION",
    "SERVICE_PATTERN",
    "Instance",
    "State",
    "check_service",
]

SCHEMA_VERSION = 1
SERVICE_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ID_PATTERN = re.compile(r"[a-z0-9-]{8,64}")
NAMELESS = "static-"
"""Where the ids begin that are made up for fixed addresses."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def _empty() -> Mapping[str, Any]:
    return _EMPTY


def check_service(service: str) -> str:
    """*service* if it is a valid name; `ConfigError` otherwise."""
    if not isinstance(service, str) or not SERVICE_PATTERN.fullmatch(service):
        raise ConfigError(
            f"{service!r} is not a service name: 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'"
        )
    return service


class State(StrEnum):
    """What an instance says of itself."""

    READY = "ready"
    """It takes requests."""
    UNREADY = "unready"
    """Alive, and called only if nothing else is left. Also the reading of a state that we do not know."""
    DRAINING = "draining"
    """Leaving. It gets no new request, whatever else is or is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One registered process of a service; the fields are those of the registry's record.

    ``weight`` is a share between 0 and 10,000; ``http_keepalive`` is in seconds, ``None`` when the service did not say;
    ``registered_at`` is the service's own wall clock (RFC 3339) and is only ever shown, never reckoned with.
    ``extra`` keeps the fields of the record that this version does not know.
    """

    service: str
    id: str
    host: str
    port: int
    scheme: str = "http"
    state: State = State.READY
    v: int = SCHEMA_VERSION
    pid: int | None = None
    hostname: str | None = None
    slot: str = "0"
    version: str | None = None
    zone: str | None = None
    weight: float = 100
    http_keepalive: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=_empty, hash=False)
    registered_at: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_empty, hash=False, repr=False)

    @property
    def is_nameless(self) -> bool:
        """Whether its id was made up here, for a fixed address (`NAMELESS`): whoever listens there doesn't know of it."""
        return self.id.startswith(NAMELESS) and self.pid is None and self.registered_at is None

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``scheme://host:port``."""
        return f"{self.scheme}://{self.address}"
