"""``disco register SERVICE --port N``: register something that already runs, and watch over it."""

from __future__ import annotations

from typing import Annotated

import typer

from ..model.errors import ConfigError
from ..model.instance import check_service
from ..serving.health import Health
from ..serving.prober import probe_http, probe_tcp
from .options import (
    DrainTimeout,
    HealthFailures,
    HealthInterval,
    HealthPath,
    HealthTimeout,
    Host,
    Hostname,
    HttpKeepalive,
    Metadata,
    Quiet,
    ReadyTimeout,
    Scheme,
    Slot,
    Ttl,
    Version,
    Weight,
    Zone,
    check_times,
    describe,
)
from .session import Session
from .watchover import Watchover

__all__ = ["register"]


def register(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Where it listens.")],
    health_path: HealthPath = None,
    health_interval: HealthInterval = 2.0,
    health_timeout: HealthTimeout = 1.0,
    health_failures: HealthFailures = 3,
    ready_timeout: ReadyTimeout = 60.0,
    version: Version = None,
    weight: Weight = 100,
    zone: Zone = None,
    host: Host = None,
    hostname: Hostname = None,
    slot: Slot = "0",
    ttl: Ttl = 15.0,
    http_keepalive: HttpKeepalive = None,
    metadata: Metadata = None,
    scheme: Annotated[Scheme, typer.Option("--scheme", help="What it speaks.")] = Scheme.HTTP,
    drain_timeout: DrainTimeout = 20.0,
    quiet: Quiet = 1.0,
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
    check_times(
        ttl=ttl,
        positive={
            "--health-interval": health_interval,
            "--health-timeout": health_timeout,
            "--ready-timeout": ready_timeout,
        },
        zero={"--drain-timeout": drain_timeout, "--quiet": quiet},
    )
    record = describe(
        session,
        service,
        port=port,
        host=host,
        scheme=scheme,
        weight=weight,
        metadata=metadata,
        version=version,
        zone=zone,
        hostname=hostname,
        slot=slot,
        http_keepalive=http_keepalive,
    )
    where = record["host"]
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
