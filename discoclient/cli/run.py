"""``disco run SERVICE -- COMMAND...``: start a service, register it when it is ready, watch over it, drain and stop it."""

from __future__ import annotations

import os
import uuid
from typing import Annotated, Any

import typer

from ..model.errors import ConfigError
from ..model.instance import Instance, check_service
from ..model.policy import check_seconds
from ..registry.codec import encode
from ..serving.doorway import Doorway
from ..serving.life import Terms
from ..serving.plan import Plan
from ..serving.registration import LEAST_TTL, own_address
from ..serving.runner import Runner
from .errors import Failure
from .output import remark
from .register import Scheme, parse_metadata
from .session import Session
from .signals import until_ended

__all__ = ["run"]


def run(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run.", show_default=False)
    ] = None,
    health_path: Annotated[
        str | None,
        typer.Option(
            "--health-path",
            metavar="PATH",
            help="Well means: GET PATH answers 2xx. Default: its own listener accepts a connection.",
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
        float, typer.Option("--ready-timeout", metavar="S", help="Seconds that it may take to become ready.")
    ] = 60.0,
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
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="What runs there.")] = None,
    weight: Annotated[
        float,
        typer.Option("--weight", min=0, max=10_000, metavar="N", help="Its share of requests, 0 to 10000."),
    ] = 100,
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="Z", help="Default: $DISCO_ZONE.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDR",
            help="The address that callers use. Default: $DISCO_HOST, else that of the interface which reaches the registry.",
        ),
    ] = None,
    hostname: Annotated[
        str | None,
        typer.Option("--hostname", metavar="NAME", help="Default: $DISCO_HOSTNAME, else this host's name."),
    ] = None,
    slot: Annotated[
        str, typer.Option("--slot", metavar="NAME", help="Tells instances on one host apart.")
    ] = "0",
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
    ttl: Annotated[
        float,
        typer.Option(
            "--ttl", metavar="S", help="Seconds after which it leaves if all of this dies; 2 or more."
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

    \b
    Examples:
      disco run experiment --health-path /healthz -- python service.py --port {port}
      disco run experiment --replace --version 2.4.1 --health-path /healthz -- node server.js
      disco run experiment --health-path /healthz -- uvicorn app:app --fd {fd}

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
    if check_seconds("--ttl", ttl) < LEAST_TTL:
        raise ConfigError(f"--ttl must be {LEAST_TTL:g} seconds or more; got {ttl:g}")
    for name, seconds in (
        ("--health-interval", health_interval),
        ("--health-timeout", health_timeout),
        ("--ready-timeout", ready_timeout),
    ):
        check_seconds(name, seconds)
    for name, seconds in (
        ("--bake", bake),
        ("--drain-timeout", drain_timeout),
        ("--quiet", quiet),
        ("--stop-timeout", stop_timeout),
    ):
        check_seconds(name, seconds, zero=True)
    if health_path is not None and not health_path.startswith("/"):
        raise ConfigError(f"--health-path begins with '/', such as '/healthz'; got {health_path!r}")
    doorway = Doorway(command=command or [], port=port, port_file=port_file, is_socket=socket)
    record: dict[str, Any] = {
        "version": version,
        "zone": zone,
        "weight": int(weight) if weight.is_integer() else weight,
        "hostname": hostname,
        "slot": slot,
        "http_keepalive": http_keepalive,
        "metadata": parse_metadata(metadata or []),
    }
    where = host or os.environ.get("DISCO_HOST") or own_address(address)
    # What registering would complain about is said now, and not when the service is ready at last.
    encode(
        Instance(service=service, id="not-yet-known", host=where, port=1, scheme=str(scheme), **record),
        hostnames=address.hostnames,
    )
    plan = Plan(
        service=service,
        instance_id=uuid.uuid4().hex,
        doorway=doorway,
        registry=session.registry,
        host=where,
        scheme=str(scheme),
        record=record,
        health_path=health_path,
        health_interval=health_interval,
        health_timeout=health_timeout,
        health_failures=health_failures,
        ttl=ttl,
        quiet=quiet,
        drain_timeout=drain_timeout,
        terms=Terms(ready_timeout=ready_timeout, bake=bake, stop_timeout=stop_timeout, replace=replace),
    )
    runner = Runner(plan, say=remark)
    with until_ended(runner.stop):
        ending = runner.run()
    if ending.problem:
        raise Failure(f"{service}: {ending.problem}", ending.code)
    return ending.code
