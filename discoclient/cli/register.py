"""``disco register SERVICE --port N``: register something that already runs, and watch over it."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from ..model.errors import ConfigError
from ..model.instance import Instance, check_service
from ..model.policy import check_seconds
from ..registry.codec import encode
from ..serving.health import Health
from ..serving.prober import probe_http, probe_tcp
from ..serving.registration import LEAST_TTL, own_address
from .session import Session
from .watchover import Watchover

__all__ = ["parse_metadata", "register"]


class Scheme(StrEnum):
    HTTP = "http"
    HTTPS = "https"


def register(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Where it listens.")],
    health_path: Annotated[
        str | None,
        typer.Option(
            "--health-path",
            metavar="PATH",
            help="Well means: GET PATH answers 2xx. Default: the port accepts a connection.",
        ),
    ] = None,
    health_interval: Annotated[
        float, typer.Option("--health-interval", metavar="S", help="Seconds between two probes.")
    ] = 2.0,
    health_timeout: Annotated[
        float, typer.Option("--health-timeout", metavar="S", help="Seconds that one probe may take.")
    ] = 1.0,
    health_failures: Annotated[
        int,
        typer.Option(
            "--health-failures", min=1, metavar="N", help="Bad probes in a row that make it unready."
        ),
    ] = 3,
    ready_timeout: Annotated[
        float, typer.Option("--ready-timeout", metavar="S", help="Seconds to wait for the first good probe.")
    ] = 60.0,
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="What runs there.")] = None,
    weight: Annotated[
        float,
        typer.Option("--weight", min=0, max=10_000, metavar="W", help="Its share of requests, 0 to 10000."),
    ] = 100,
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="Z", help="Default: $DISCO_ZONE.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDR",
            help="The address that callers use, and that is probed. Default: $DISCO_HOST, else that of the interface "
            "which reaches the registry.",
        ),
    ] = None,
    hostname: Annotated[
        str | None,
        typer.Option("--hostname", metavar="NAME", help="Default: $DISCO_HOSTNAME, else this host's name."),
    ] = None,
    slot: Annotated[
        str, typer.Option("--slot", metavar="NAME", help="Tells instances on one host apart.")
    ] = "0",
    ttl: Annotated[
        float,
        typer.Option(
            "--ttl", metavar="S", help="Seconds after which it leaves if this command dies; 2 or more."
        ),
    ] = 15.0,
    http_keepalive: Annotated[
        float | None,
        typer.Option(
            "--http-keepalive",
            min=0,
            metavar="S",
            help="Seconds that it keeps idle connections. Unsaid, callers assume 2.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="K=V", help="Anything else. Can be repeated.")
    ] = None,
    scheme: Annotated[Scheme, typer.Option("--scheme", help="What it speaks.")] = Scheme.HTTP,
    drain_timeout: Annotated[
        float, typer.Option("--drain-timeout", metavar="S", help="Seconds that a drain may take at most.")
    ] = 20.0,
    quiet: Annotated[
        float,
        typer.Option(
            "--quiet", metavar="S", help="Seconds that a drain takes at least, for callers unknown."
        ),
    ] = 1.0,
) -> int:
    """Register something that already runs (a database, a vendor's binary), for as long as this command runs.

    It is probed first, and registered when it is well. Later it is probed on: after --health-failures bad probes in a row it
    is marked unready (callers come only if nothing else is left), and ready again with the first good one. It stays
    registered as unready also while nothing listens on its port any more: whether it comes back is not for us to say.

    Ctrl-C, SIGTERM and 'disco drain' drain it (its callers are seen to have left) and deregister it; the service itself is
    left alone. A second Ctrl-C skips the rest of the drain. If the registry goes away, it is registered again as soon as
    possible.

    \b
    Examples:
      disco register ledger --port 5432
      disco register experiment --port 8000 --health-path /healthz --version 2.4.1 --metadata team=red

    \b
    Exit codes:
      0  ended by Ctrl-C or SIGTERM, or asked to retire
      2  wrong usage
      3  it was not well within --ready-timeout
      4  the registry could not be reached for the first registration
    """
    session: Session = ctx.obj
    address = session.address
    check_service(service)
    if address.scheme == "static":
        raise ConfigError(
            f"{session.source}: nothing can be registered in static://, which is fixed; use etcd://"
        )
    if check_seconds("--ttl", ttl) < LEAST_TTL:
        raise ConfigError(f"--ttl must be {LEAST_TTL:g} seconds or more; got {ttl:g}")
    check_seconds("--health-interval", health_interval)
    check_seconds("--health-timeout", health_timeout)
    check_seconds("--ready-timeout", ready_timeout)
    check_seconds("--drain-timeout", drain_timeout, zero=True)
    check_seconds("--quiet", quiet, zero=True)
    where = host or os.environ.get("DISCO_HOST") or own_address(address)
    record: dict[str, Any] = {
        "host": where,
        "scheme": str(scheme),
        "version": version,
        "zone": zone,
        "weight": int(weight) if weight.is_integer() else weight,
        "hostname": hostname,
        "slot": slot,
        "http_keepalive": http_keepalive,
        "metadata": parse_metadata(metadata or []),
    }
    # What registering would complain about is said now, and not when the service is ready at last.
    encode(Instance(service=service, id="not-yet-known", port=port, **record), hostnames=address.hostnames)
    probe = (
        probe_tcp(where, port) if health_path is None else probe_http(str(scheme), where, port, health_path)
    )
    options = {
        **record,
        "ttl": ttl,
        "quiet": quiet,
        "drain_timeout": drain_timeout,
        "registry": session.registry,
    }
    return Watchover(service, port, options, ready_timeout=ready_timeout).run(
        probe, Health(failures=health_failures), interval=health_interval, timeout=health_timeout
    )


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
