"""``disco run SERVICE -- COMMAND...``: start a service, register it when it is ready, watch over it, drain and stop it."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from ..model.errors import ConfigError
from ..model.instance import check_service
from ..serving.canary import parse_threshold
from ..serving.doorway import Doorway
from ..serving.life import Terms
from ..serving.plan import Plan
from ..serving.runner import Runner
from .errors import Failure
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
    parse_seconds,
)
from .output import remark
from .session import Session
from .signals import until_ended

__all__ = ["run"]


def run(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run.", show_default=False)
    ] = None,
    health_path: HealthPath = None,
    health_interval: HealthInterval = 2.0,
    health_timeout: HealthTimeout = 1.0,
    health_failures: HealthFailures = 3,
    ready_timeout: ReadyTimeout = 60.0,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Once it has proved itself, ask the older instances of this service, host name and slot to retire.",
        ),
    ] = False,
    bake: Annotated[
        float,
        typer.Option("--bake", metavar="S", help="Seconds to be registered and well before --replace asks."),
    ] = 5.0,
    promote_after: Annotated[
        str | None,
        typer.Option(
            "--promote-after",
            metavar="S",
            help="A canary: with the share of --weight for so many seconds (60, 60s, 2m), then with 100.",
        ),
    ] = None,
    abort_if: Annotated[
        str | None,
        typer.Option(
            "--abort-if",
            metavar="EXPR",
            help="What its callers may say before a canary is given up. Default: 'error_rate > 0.02'.",
        ),
    ] = None,
    version: Version = None,
    weight: Weight = 100,
    zone: Zone = None,
    host: Host = None,
    hostname: Hostname = None,
    slot: Slot = "0",
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, metavar="N", help="The port to use. Default: a free one."),
    ] = None,
    port_file: Annotated[
        str | None,
        typer.Option(
            "--port-file", metavar="FILE", help="The command chooses its port, and writes it there."
        ),
    ] = None,
    socket: Annotated[
        bool,
        typer.Option("--socket", help="Bind the socket here and hand it over, as systemd does."),
    ] = False,
    ttl: Ttl = 15.0,
    http_keepalive: HttpKeepalive = None,
    metadata: Metadata = None,
    scheme: Annotated[Scheme, typer.Option("--scheme", help="What it speaks.")] = Scheme.HTTP,
    drain_timeout: DrainTimeout = 20.0,
    quiet: Quiet = 1.0,
    stop_timeout: Annotated[
        float, typer.Option("--stop-timeout", metavar="S", help="Seconds between SIGTERM and SIGKILL.")
    ] = 5.0,
) -> int:
    """Run a service: in any language, with one command in front of its own.

    It is started with a port of its own, registered when it is ready and never before, watched over (unready while it is not
    well), and out of the registry at once if it dies. SIGTERM, Ctrl-C, 'disco drain' and a newer 'disco run --replace' drain
    it: callers are seen to have left, what is in flight ends, and only then is it told to stop. A second SIGTERM shortens the
    drain, a third one ends everything.

    The command learns its port by $PORT or {port}; with {fd} or --socket it gets the listening socket as systemd hands one
    over (descriptor 3, $LISTEN_FDS, $LISTEN_PID), and then --health-path, or READY=1 at $NOTIFY_SOCKET, says when it is
    ready; with --port-file it chooses for itself. It also gets $DISCO_SERVICE and $DISCO_INSTANCE.

    A canary (--weight 5 --promote-after 60s) begins with a small share. Its callers tell in the registry how many of their
    requests to it failed (no answer, or a status of 500 and above). More than --abort-if allows, of 20 or more, and it is
    drained and ends with 3; else, after that time and 20 requests at least, it gets its full share, and --replace begins.

    \b
    Examples:
      disco run experiment --health-path /healthz -- python service.py --port {port}
      disco run experiment --replace --version 2.4.1 --health-path /healthz -- node server.js
      disco run experiment --health-path /healthz -- uvicorn app:app --fd {fd}
      disco run experiment --replace --weight 5 --promote-after 60s --abort-if 'error_rate > 0.02' -- ./serve {port}

    \b
    Exit codes:
      0    drained and stopped, when asked to
      2    wrong usage
      3    it did not become ready, or died or turned unhealthy before it took over; nothing else was touched
      4    the registry could not be reached; nothing else was touched
      137  it had to be killed
      else that of the command
    """
    session: Session = ctx.obj
    address = session.address
    check_service(service)
    if address.scheme not in ("etcd", "etcds"):
        raise ConfigError(
            f"{session.source}: nothing that outlives this command can be registered in {address.scheme}://; use etcd://"
        )
    check_times(
        ttl=ttl,
        positive={
            "--health-interval": health_interval,
            "--health-timeout": health_timeout,
            "--ready-timeout": ready_timeout,
        },
        zero={
            "--bake": bake,
            "--drain-timeout": drain_timeout,
            "--quiet": quiet,
            "--stop-timeout": stop_timeout,
        },
    )
    if health_path is not None and not health_path.startswith("/"):
        raise ConfigError(f"--health-path begins with '/', such as '/healthz'; got {health_path!r}")
    if abort_if is not None and promote_after is None:
        raise ConfigError("--abort-if judges a canary: give --promote-after as well")
    trial = None if promote_after is None else parse_seconds("--promote-after", promote_after)
    threshold = None if trial is None else parse_threshold(abort_if or "error_rate > 0.02")
    doorway = Doorway(command=command or [], port=port, port_file=port_file, is_socket=socket)
    record = describe(
        session,
        service,
        port=port or 1,
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
    plan = Plan(
        service=service,
        instance_id=uuid.uuid4().hex,
        doorway=doorway,
        registry=session.registry,
        host=record.pop("host"),
        scheme=record.pop("scheme"),
        record=record,
        health_path=health_path,
        health_interval=health_interval,
        health_timeout=health_timeout,
        health_failures=health_failures,
        ttl=ttl,
        quiet=quiet,
        drain_timeout=drain_timeout,
        threshold=threshold,
        terms=Terms(
            ready_timeout=ready_timeout, bake=bake, stop_timeout=stop_timeout, replace=replace, trial=trial
        ),
    )
    runner = Runner(plan, say=remark)
    with until_ended(runner.stop):
        ending = runner.run()
    if ending.problem:
        raise Failure(f"{service}: {ending.problem}", ending.code)
    return ending.code
