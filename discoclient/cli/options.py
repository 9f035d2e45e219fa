"""The options that ``disco run`` and ``disco register`` share, and the record that they describe."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer

from ..model.errors import ConfigError
from ..model.instance import Instance
from ..model.policy import check_seconds
from ..registry.codec import encode
from ..serving.registration import LEAST_TTL, own_address
from .session import Session

__all__ = [
    "DrainTimeout",
    "HealthFailures",
    "HealthInterval",
    "HealthPath",
    "HealthTimeout",
    "Host",
    "Hostname",
    "HttpKeepalive",
    "Metadata",
    "Quiet",
    "ReadyTimeout",
    "Scheme",
    "Slot",
    "Ttl",
    "Version",
    "Weight",
    "Zone",
    "check_times",
    "describe",
    "parse_metadata",
    "parse_seconds",
]


class Scheme(StrEnum):
    HTTP = "http"
    HTTPS = "https"


HealthPath: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--health-path",
        metavar="PATH",
        help="Well means: GET PATH answers 2xx. Default: the port accepts a connection.",
    ),
]
HealthInterval: TypeAlias = Annotated[
    float, typer.Option("--health-interval", metavar="S", help="Seconds between two probes.")
]
HealthTimeout: TypeAlias = Annotated[
    float, typer.Option("--health-timeout", metavar="S", help="Seconds that one probe may take.")
]
HealthFailures: TypeAlias = Annotated[
    int,
    typer.Option("--health-failures", min=1, metavar="N", help="Bad probes in a row that make it unready."),
]
ReadyTimeout: TypeAlias = Annotated[
    float, typer.Option("--ready-timeout", metavar="S", help="Seconds to wait for the first good probe.")
]
Version: TypeAlias = Annotated[str | None, typer.Option("--version", metavar="V", help="What runs there.")]
Weight: TypeAlias = Annotated[
    float,
    typer.Option("--weight", min=0, max=10_000, metavar="W", help="Its share of requests, 0 to 10000."),
]
Zone: TypeAlias = Annotated[
    str | None, typer.Option("--zone", metavar="Z", help="Default: $DISCO_ZONE.", show_default=False)
]
Host: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDR",
        help="The address that callers use, and that is probed. Default: $DISCO_HOST, else that of the interface "
        "which reaches the registry.",
    ),
]
Hostname: TypeAlias = Annotated[
    str | None,
    typer.Option("--hostname", metavar="NAME", help="Default: $DISCO_HOSTNAME, else this host's name."),
]
Slot: TypeAlias = Annotated[
    str, typer.Option("--slot", metavar="NAME", help="Tells instances on one host apart.")
]
Ttl: TypeAlias = Annotated[
    float,
    typer.Option("--ttl", metavar="S", help="Seconds after which it leaves if this command dies; 2 or more."),
]
HttpKeepalive: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--http-keepalive",
        min=0,
        metavar="S",
        help="Seconds that it keeps idle connections. Unsaid, callers assume 2.",
    ),
]
Metadata: TypeAlias = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="K=V", help="Anything else. Can be repeated.")
]
DrainTimeout: TypeAlias = Annotated[
    float, typer.Option("--drain-timeout", metavar="S", help="Seconds that a drain may take at most.")
]
Quiet: TypeAlias = Annotated[
    float,
    typer.Option("--quiet", metavar="S", help="Seconds that a drain takes at least, for callers unknown."),
]


def check_times(*, ttl: float, positive: dict[str, float], zero: dict[str, float]) -> None:
    """Times by the option's name; those of *zero* may be 0. Raises `ConfigError`."""
    if check_seconds("--ttl", ttl) < LEAST_TTL:
        raise ConfigError(f"--ttl must be {LEAST_TTL:g} seconds or more; got {ttl:g}")
    for name, seconds in positive.items():
        check_seconds(name, seconds)
    for name, seconds in zero.items():
        check_seconds(name, seconds, zero=True)


def describe(
    session: Session,
    service: str,
    *,
    port: int,
    host: str | None,
    scheme: Scheme,
    weight: float,
    metadata: list[str] | None,
    **others: Any,
) -> dict[str, Any]:
    """What `register` takes of the instance beside service and port. Raises `ConfigError`.

    What registering would complain about is said now, and not when the service is ready at last.
    """
    address = session.address
    record: dict[str, Any] = {
        "host": host or os.environ.get("DISCO_HOST") or own_address(address),
        "scheme": str(scheme),
        "weight": int(weight) if weight.is_integer() else weight,
        "metadata": parse_metadata(metadata or []),
        **others,
    }
    encode(Instance(service=service, id="not-yet-known", port=port, **record), hostnames=address.hostnames)
    return record


def parse_seconds(name: str, text: str) -> float:
    """Seconds from ``60``, ``60s``, ``2m`` or ``1h``. Raises `ConfigError`."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|)\s*", text)
    if found is None:
        raise ConfigError(f"{name} is a time, such as 60, 60s or 2m; got {text!r}")
    return check_seconds(name, float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]])


def parse_metadata(pairs: list[str]) -> dict[str, str]:
    """``K=V`` pairs as a mapping. Raises `ConfigError`."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--metadata is written K=V; got {pair!r}")
        if key in parsed:
            raise ConfigError(f"--metadata {key} is given twice")
        parsed[key] = value
    return parsed
