"""What the options mean together: checked, and in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from discoclient.model.errors import ConfigError
from discoclient.registry.address import RegistryAddress

from .http.reading import Limits
from .options import OPTIONS, PREFIX, Option, gather
from .places import Kind, Listener, parse_listener, parse_place
from .proxy.gate import Policy

__all__ = ["OPTIONS", "PREFIX", "Option", "Settings", "gather"]

OFF = "off"
"""In place of an address: none, not even the default."""
LONGEST = 86_400.0
"""Seconds that any of the times may be."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``said``: what it was made of, by option. ``hosts``: names that clients may have for us, in lower case."""

    said: Mapping[str, Any]
    registry: str | None
    listeners: tuple[Listener, ...]
    hosts: frozenset[bytes]
    allow_remote: bool
    workers: int
    access_log: str | None
    drain_timeout: float
    policy: Policy
    zone: str | None
    balancer: str
    connect_timeout: float
    discovery_timeout: float

    @property
    def admin(self) -> Listener | None:
        return next((each for each in self.listeners if each.kind is Kind.ADMIN), None)

    @property
    def remote(self) -> tuple[Listener, ...]:
        """Those that other machines can reach."""
        return tuple(each for each in self.listeners if not each.place.is_local)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """From *values* by option. Raises `ConfigError`."""
        said = {option.name: option.default for option in OPTIONS} | dict(values)
        binds = [text for text in said["bind"] if text != OFF]
        listeners = [Listener(Kind.BIND, parse_place(text, "--bind")) for text in binds]
        listeners += [parse_listener(Kind.LISTEN, text) for text in said["listen"]]
        listeners += [parse_listener(Kind.TCP, text) for text in said["tcp"]]
        if said["admin"] and said["admin"] != OFF:
            listeners.append(Listener(Kind.ADMIN, parse_place(said["admin"], "--admin")))
        if said["dns"]:
            listeners.append(Listener(Kind.DNS, parse_place(said["dns"], "--dns")))
        _check_places(listeners)
        if said["registry"]:
            try:
                address = RegistryAddress.parse(said["registry"])
            except ConfigError as error:
                raise ConfigError(f"--registry: {error}") from error
            if address.scheme == "memory":
                raise ConfigError("--registry: memory:// lives within one process, and this is another one")
        for name in (
            "header_timeout",
            "idle_timeout",
            "read_timeout",
            "connect_timeout",
            "discovery_timeout",
        ):
            _check(said, name, 0 < said[name] <= LONGEST, f"more than 0 seconds, and {LONGEST:g} at most")
        _check(said, "drain_timeout", 0 <= said["drain_timeout"] <= LONGEST, f"from 0 to {LONGEST:g} seconds")
        _check(said, "workers", 1 <= said["workers"] <= 64, "from 1 to 64")
        if said["workers"] > 1 and any(each.place.path is None and not each.place.port for each in listeners):
            raise ConfigError(
                "--workers: several processes can't share a port that is chosen when they start (port 0)"
            )
        _check(said, "max_connections", said["max_connections"] >= 1, "1 or more")
        _check(said, "max_body", said["max_body"] >= 0, "0 bytes (no limit) or more")
        _check(said, "replay", said["replay"] >= 0, "0 bytes or more")
        settings = cls(
            said=dict(values),
            registry=said["registry"],
            listeners=tuple(listeners),
            hosts=frozenset(_host(name) for name in said["allow_host"]),
            allow_remote=said["allow_remote"],
            workers=said["workers"],
            access_log=said["access_log"],
            drain_timeout=said["drain_timeout"],
            policy=Policy(
                limits=Limits(body=said["max_body"] or None),
                header_timeout=said["header_timeout"],
                idle_timeout=said["idle_timeout"],
                read_timeout=said["read_timeout"],
                max_connections=said["max_connections"],
                replay=said["replay"],
                ca=said["ca"],
            ),
            zone=said["zone"],
            balancer=said["balancer"],
            connect_timeout=said["connect_timeout"],
            discovery_timeout=said["discovery_timeout"],
        )
        if settings.remote and not settings.allow_remote:
            raise ConfigError(
                f"{settings.remote[0]}: other machines can reach that address; the sidecar is for this machine alone "
                "unless --allow-remote is given"
            )
        return settings


def _check(said: Mapping[str, Any], name: str, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ConfigError(f"--{name.replace('_', '-')} must be {wanted}; got {said[name]:g}")


def _check_places(listeners: Sequence[Listener]) -> None:
    if all(listener.kind is Kind.ADMIN for listener in listeners):
        raise ConfigError("there is no way in: give one of --bind, --listen, --tcp, --dns")
    for number, listener in enumerate(listeners):
        if listener.kind is Kind.DNS and listener.place.path is not None:
            raise ConfigError("--dns takes ADDR:PORT, not a Unix socket")
        for other in listeners[:number]:
            if listener.place.overlaps(other.place):  # DNS speaks TCP, too
                raise ConfigError(f"{other} and {listener} are the same address")


def _host(name: str) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"--allow-host takes a host's name without a port, such as app.example.com; got {name!r}"
        )
    return name.lower().encode()
