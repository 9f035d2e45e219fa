"""What `register` was given, checked: a wrong argument is a `ConfigError` that says what would be right."""

from __future__ import annotations

import math
import os
import reprlib
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..model.errors import ConfigError
from ..model.instance import ID_PATTERN, Instance, check_service
from ..model.policy import check_seconds
from ..registry.address import RegistryAddress
from ..registry.codec import BadRecord, encode
from ..registry.presence import OBSERVED
from ..registry.static import FIXED

__all__ = ["LEAST_TTL", "Arguments"]

LEAST_TTL = 2.0
"""Seconds. etcd grants no shorter lease with its default election timeout."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_mapping_or_none(value: object) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_VALID: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "port": (_is_whole, "a whole number, 1 to 65535"),
    "scheme": (_is_text, "'http' or 'https'"),
    "host": (_is_text_or_none, "an IP address (or a host's name, with ?hostnames=1 in the registry's URL)"),
    "hostname": (_is_text_or_none, "text, or None for this host's name"),
    "slot": (_is_text, "text"),
    "version": (_is_text_or_none, "text or None"),
    "zone": (_is_text_or_none, "text, or None for $DISCO_ZONE"),
    "pid": (lambda value: value is None or _is_whole(value), "a whole number, 0 to 2147483647, or None"),
    "weight": (_is_number, "a number, 0 to 10000"),
    "http_keepalive": (
        lambda value: value is None or _is_number(value),
        "a number of seconds, 0 to a year, or None",
    ),
    "instance_id": (
        lambda value: value is None or (isinstance(value, str) and ID_PATTERN.fullmatch(value) is not None),
        "8 to 64 of a-z, 0-9 and '-', or None for a new one",
    ),
    "observed": (lambda value: isinstance(value, bool), "True or False"),
    "on_retire": (
        lambda value: value is None or callable(value),
        "a function of the reason, or of nothing, or None",
    ),
    "on_state": (lambda value: value is None or callable(value), "a function of the new state, or None"),
}
"""By argument: whether a value is of the right kind, and in words what is valid. What a record may hold, the codec says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of `register`, which says what they mean. Raises `ConfigError` when made of wrong ones."""

    service: str
    port: int
    host: str | None
    scheme: str
    version: str | None
    zone: str | None
    weight: float
    metadata: Mapping[str, Any] | None
    ttl: float
    http_keepalive: float | None
    hostname: str | None
    slot: str
    pid: int | None
    instance_id: str | None
    registry: str | None
    quiet: float
    drain_timeout: float
    timeout: float
    on_state: Callable[[str], None] | None
    on_retire: Callable[..., object] | None
    observed: bool

    def __post_init__(self) -> None:
        check_service(self.service)
        for name, (is_right, _) in _VALID.items():
            if not is_right(getattr(self, name)):
                raise ConfigError(self._wrong(name, getattr(self, name)))
        if not _is_mapping_or_none(self.metadata):
            raise ConfigError(
                f"metadata must be a mapping, such as a dict; got {type(self.metadata).__name__}"
            )
        if not _is_text_or_none(self.registry):  # it is not repeated, for it may hold a password
            raise ConfigError(f"registry must be a URL or None; got {type(self.registry).__name__}")
        if check_seconds("ttl", self.ttl) < LEAST_TTL:
            raise ConfigError(f"ttl must be {LEAST_TTL:g} seconds or more; got {self.ttl:g}")
        check_seconds("quiet", self.quiet, zero=True)
        check_seconds("drain_timeout", self.drain_timeout, zero=True)
        check_seconds("timeout", self.timeout)

    def instance(self, address: RegistryAddress, own_address: Callable[[RegistryAddress], str]) -> Instance:
        """The instance to register at *address*, whose own address is *own_address* unless something else is said."""
        if address.scheme == "static":  # at once, for no waiting helps
            raise ConfigError(FIXED)
        environ = os.environ
        instance = Instance(
            service=self.service,
            id=self.instance_id or uuid.uuid4().hex,
            scheme=self.scheme,
            host=self.host or environ.get("DISCO_HOST") or own_address(address),
            port=self.port,
            pid=os.getpid() if self.pid is None else self.pid,
            hostname=self.hostname or environ.get("DISCO_HOSTNAME") or socket.gethostname(),
            slot=self.slot,
            version=self.version,
            zone=self.zone or environ.get("DISCO_ZONE"),
            weight=self.weight,
            http_keepalive=self.http_keepalive,
            metadata=dict(self.metadata or {}),
            extra={OBSERVED: True} if self.observed else {},
            registered_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        try:
            encode(instance, hostnames=address.hostnames)
        except ConfigError as error:
            name = str(error.__cause__).partition(" ")[
                0
            ]  # a record is bad for a field, and its message begins with it
            if not isinstance(error.__cause__, BadRecord) or name not in _VALID:
                raise
            raise ConfigError(f"{error}; {self._wrong(name, getattr(instance, name))}") from error.__cause__
        return instance

    @staticmethod
    def _wrong(name: str, value: object) -> str:
        return f"{name} must be {_VALID[name][1]}; got {reprlib.repr(value)}"
