"""``disco render``: files from the registry, for what still stands between callers and services."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..control.handle import RegistryHandle, connect
from ..model.errors import ConfigError
from ..model.instance import check_service
from ..registry.happenings import Phase
from .ages import duration_text
from .changes import Contact
from .errors import FAILED, Failure
from .output import OutputClosed, emit_json, remark
from .session import Session
from .signals import until_ended

if TYPE_CHECKING:
    from disco_sidecar.rendering import Told

__all__ = ["render"]

DISCOVERY_TIMEOUT = 5.0
"""Seconds to wait for the first knowledge."""
SHOWN = 20
"""Lines of a failed command's output: the last ones."""


def render(
    ctx: typer.Context,
    services: Annotated[
        list[str], typer.Argument(metavar="SERVICE", help="The services that the template is about.")
    ],
    template: Annotated[
        list[str], typer.Option("--template", metavar="T", help="A Jinja2 template. Can be repeated.")
    ],
    out: Annotated[
        list[str], typer.Option("--out", metavar="F", help="The file made of it; one for each --template.")
    ],
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="CMD",
            help="A shell command that passes what is good. {} or $F in it is the new file, which is not in place yet. "
            "Without these it is run when F is in place, and F is taken back if it fails.",
        ),
    ] = None,
    reload: Annotated[
        str | None, typer.Option("--reload", metavar="CMD", help="A shell command that makes F known.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="S", help="Seconds between two reloads at least.")
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds that CMD may take, then it is ended.")
    ] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Render once, and end.")] = False,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="Render a service without instances, as one without instances."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for each thing that happens.")
    ] = False,
) -> int:
    """Keep a file up to date with the registry: render, check, replace in one step, reload. Until Ctrl-C.

    What is the same as before is not reloaded. If a check fails, the old file stays, and why is told; it is tried again at the
    next change, and now and then. If a reload fails, it is tried again. While the registry does not answer the file
    stays as it is. A service whose last instance is gone keeps its last ones in the file, and nothing is written before each
    service had an instance; --allow-empty renders it empty.

    In a template, services.NAME.instances are those to be called, each with address, share (its weight, 1 to 256) and the
    fields of the record; services.NAME.standbys are those for when all of these fail. Anything undefined is an error.

    With --json an object has 'event' (written, unchanged, failed, empty, back, lost, found), 'text', 'output' (of a command
    that failed), 'time', and what belongs to the event.

    \b
    Examples:
      disco render --template nginx.conf.j2 --out /etc/nginx/conf.d/experiment.conf --check 'nginx -t -q' \\
          --reload 'nginx -s reload' experiment
      disco render --template haproxy.cfg.j2 --out /etc/haproxy/haproxy.cfg --check 'haproxy -c -f {}' \\
          --reload 'systemctl reload haproxy' experiment ledger

    \b
    Exit codes:
      0  ended by Ctrl-C or SIGTERM; with --once: the file is as it should be
      1  with --once: it is not, and why was told
      2  wrong usage, or the template is none
      4  the registry could not be reached at the start
    """
    session: Session = ctx.obj
    address = session.address
    for service in services:
        check_service(service)
    if len(template) != len(out):
        raise ConfigError(
            f"each --template has its --out, in the same order; got {len(template)} and {len(out)}"
        )
    missing = [name for name in ("disco_sidecar", "jinja2") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"disco render needs {' and '.join(missing)}: pip install 'discoclient[sidecar]'")
    from disco_sidecar.rendering import Job, Pair, Renderer  # only now: the other commands start without it

    job = Job(
        services=tuple(services),
        pairs=tuple(map(Pair, template, out)),
        check=check,
        reload=reload,
        interval=interval,
        timeout=timeout,
        discovery_timeout=DISCOVERY_TIMEOUT,
        once=once,
        allow_empty=allow_empty,
    )
    with connect(session.registry, discovery_timeout=DISCOVERY_TIMEOUT) as handle:
        report = _Report(handle, str(address), services, as_json=json)
        renderer = Renderer(job, handle, tell=report.tell, look_around=report.look_around)
        with until_ended(renderer.stop):
            is_well = renderer.run()
    if once and not is_well:
        raise Failure(f"{job.names}: not rendered", FAILED)
    return 0


class _Report:
    """Tells people on standard error, or programs on standard output; and whether the registry is heard."""

    def __init__(self, handle: RegistryHandle, address: str, services: list[str], *, as_json: bool) -> None:
        self._handle = handle
        self._address = address
        self._services = services
        self._as_json = as_json
        self._contact = Contact()

    def tell(self, told: Told) -> None:
        self._say(told.kind, told.text, told.output, **told.facts)

    def look_around(self) -> None:
        resolvers = [self._handle.resolver(service) for service in self._services]
        is_live = all(each.phase is Phase.LIVE for each in resolvers)
        if not self._contact.hear(is_live, monotonic()):
            return
        if not self._contact.is_lost:
            self._say("found", "the registry answers again")
            return
        ages = [age for each in resolvers if (age := each.age()) is not None]
        old = f", {duration_text(max(ages))} old" if ages else ""
        self._say("lost", f"the registry does not answer ({self._address}); what is known stays{old}")

    def _say(self, event: str, text: str, output: str = "", **facts: Any) -> None:
        if self._as_json:
            time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            try:
                emit_json({"event": event, "text": text, "output": output, **facts, "time": time})
            except OutputClosed:  # nobody reads it, which is no reason to leave the file alone
                pass
            return
        remark(text)
        for line in output.splitlines()[-SHOWN:]:
            remark(line, prefix="  | ")
