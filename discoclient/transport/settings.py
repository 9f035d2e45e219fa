"""What a client was told about how to call, checked and in one place."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypedDict

import httpx

from ..balancing.balancer import Balancer, find_balancer
from ..balancing.preferences import Preferences
from ..calling.ledger import Policies
from ..control.emitter import Emitter
from ..model.errors import ConfigError
from ..model.events import Hook
from ..model.policy import (
    HedgePolicy,
    OutlierPolicy,
    RecoveryPolicy,
    RetryPolicy,
    SlowStartPolicy,
    ThrottlePolicy,
    check_seconds,
)
from .wire import Engine, WireOptions

__all__ = ["WIRE", "Settings", "TransportOptions"]


class TransportOptions(TypedDict, total=False):
    """The keywords that `DiscoClient` and `DiscoTransport` have in common; `DiscoClient` says what they mean."""

    balancer: str | Balancer
    retry: RetryPolicy
    outlier: OutlierPolicy
    hedge: HedgePolicy | None
    throttle: ThrottlePolicy | None
    recovery: RecoveryPolicy | None
    slow_start: SlowStartPolicy
    zone: str | None
    versions: Mapping[str, float] | None
    subset: int | None
    vanish_grace: float
    deadline: float | None
    last_known: str | os.PathLike[str] | None
    hooks: Sequence[Hook]
    host_header: str | None
    server_name: str | None
    discovery_timeout: float
    verify: ssl.SSLContext | str | bool
    cert: Any
    trust_env: bool
    http1: bool
    http2: bool
    limits: httpx.Limits
    engine: Engine


WIRE = ("verify", "cert", "trust_env", "http1", "http2", "limits")
"""Those that are about the connections, and are httpx's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    policies: Policies
    preferences: Preferences
    emitter: Emitter
    deadline: float | None
    last_known: str | None
    host_header: str | None
    server_name: str | None
    discovery_timeout: float
    wire: WireOptions

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """From the `TransportOptions` in *options*. Raises `ConfigError`, and `TypeError` for a keyword that does not exist."""
        unknown = options.keys() - TransportOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
        for name, (kind, is_optional) in _KINDS.items():
            value = options.get(name)
            if name in options and not isinstance(value, kind) and not (is_optional and value is None):
                raise ConfigError(f"{name}= must be a {kind.__name__}; got {value!r}")
        deadline, last_known, zone = options.get("deadline"), options.get("last_known"), options.get("zone")
        if last_known is not None and not isinstance(last_known, str | os.PathLike):
            raise ConfigError(f"last_known= must be a folder's path; got {last_known!r}")
        return cls(
            policies=Policies(
                retry=options.get("retry", RetryPolicy()),
                outlier=options.get("outlier", OutlierPolicy()),
                hedge=options.get("hedge"),
                throttle=options.get("throttle"),
                recovery=options.get("recovery"),
            ),
            preferences=Preferences(
                balancer=find_balancer(options.get("balancer", "peak_ewma")),
                slow_start=options.get("slow_start", SlowStartPolicy()),
                zone=(os.environ.get("DISCO_ZONE") if zone is None else zone) or None,
                versions=MappingProxyType(dict(_mapping(options.get("versions")))),
                subset=options.get("subset"),
                grace=check_seconds("vanish_grace=", options.get("vanish_grace", 30.0), zero=True),
            ),
            emitter=Emitter(options.get("hooks", ())),
            deadline=None if deadline is None else check_seconds("deadline=", deadline),
            last_known=None if last_known is None else os.fspath(last_known),
            host_header=_name("host_header", options.get("host_header")),
            server_name=_name("server_name", options.get("server_name")),
            discovery_timeout=check_seconds("discovery_timeout", options.get("discovery_timeout", 5.0)),
            wire=WireOptions(**{name: options[name] for name in (*WIRE, "engine") if name in options}),
        )


_KINDS: Mapping[str, tuple[type, bool]] = {
    "retry": (RetryPolicy, False),
    "outlier": (OutlierPolicy, False),
    "hedge": (HedgePolicy, True),
    "throttle": (ThrottlePolicy, True),
    "recovery": (RecoveryPolicy, True),
    "limits": (httpx.Limits, False),
    "trust_env": (bool, False),
    "http1": (bool, False),
    "http2": (bool, False),
}


def _name(option: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isprintable() or not value.isascii():
        raise ConfigError(f"{option}= must be a host's name; got {value!r}")
    return value


def _mapping(versions: Any) -> Mapping[str, float]:
    if versions is None:
        return {}
    if not isinstance(versions, Mapping):
        raise ConfigError(
            f"versions= must map versions to shares, such as {{'2.4.1': 0.05}}; got {versions!r}"
        )
    return versions
