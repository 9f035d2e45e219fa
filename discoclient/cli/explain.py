"""``disco explain SERVICE``: who would be called, and why."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import httpx
import typer

from ..balancing.explanation import Candidate, Explanation
from ..client import DiscoClient
from ..model.errors import ConfigError
from ..model.policy import check_seconds
from ..registry.codec import to_record
from .ages import duration_text
from .errors import Failure
from .ls import shorten
from .output import Segment, clean, count, emit, emit_json, emit_table
from .session import Session

__all__ = ["explain"]

COLUMNS = (
    "ID",
    "ADDRESS",
    "STANDING",
    "WEIGHT",
    "VERSION",
    "ZONE",
    "IN FLIGHT",
    "LATENCY",
    "COST",
    "GOOD",
    "LEFT ALONE",
)
_STYLES = {"ready": "green", "weight 0": "yellow", "unready": "yellow", "vanished": "red", "draining": "cyan"}


def explain(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    requests: Annotated[
        int,
        typer.Option(
            "-n",
            "--requests",
            metavar="N",
            min=0,
            help="Send so many GETs first, so that there is something to see.",
        ),
    ] = 0,
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="Where these go.")] = "/",
    balancer: Annotated[
        str, typer.Option("--balancer", metavar="NAME", help="As DiscoClient's.")
    ] = "peak_ewma",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="To find the service, and for each request.")
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """Who would be called, and why: every instance with its standing, load, cost and ejection, as DiscoClient sees it.

    What a process has learnt about instances lives in that process: `client.explain()` shows it there. This command begins with
    the registry's word alone; --requests sends some requests first, to see what comes of them.

    With --json an instance is its record in full, with what is shown here beside it: 'standing', 'share' (its weight just now),
    'in_flight', 'requests', 'failures', 'latency', 'cost', 'success_rate', 'ejected_for' (seconds, or null), 'reason', and
    the snapshot's 'revision' and 'age'.

    \b
    Examples:
      disco explain experiment
      disco explain experiment --requests 100 --path /users/1

    \b
    Exit codes:
      0  done
      1  no instance of SERVICE is registered
      2  wrong usage
      4  the registry could not be reached
    """
    session: Session = ctx.obj
    session.address  # noqa: B018 - checked here, where the error can say where a wrong one stands
    if not path.startswith("/"):
        raise ConfigError(f"--path begins with '/', such as '/{path}'; got {path!r}")
    timeout = check_seconds("--timeout", timeout)
    with DiscoClient(
        service, registry=session.registry, balancer=balancer, timeout=timeout, discovery_timeout=timeout
    ) as client:
        client.explain()  # what can't be found is said before anything is sent
        for _ in range(requests):
            with suppress(httpx.HTTPError):  # it shows in the table
                client.get(f"http://{service}{path}")
        explanation = client.explain()
    if not explanation.candidates:
        raise Failure(f"no instance of {service} is registered; 'disco ls' shows what is")
    if json:
        for candidate in explanation.candidates:
            emit_json(_record(candidate, explanation))
    else:
        _show(explanation)
    return 0


def _record(candidate: Candidate, explanation: Explanation) -> dict[str, object]:
    return to_record(candidate.instance) | {
        "standing": candidate.standing,
        "share": candidate.weight,
        "in_flight": candidate.in_flight,
        "latency": candidate.latency,
        "cost": candidate.cost,
        "requests": candidate.requests,
        "failures": candidate.failures,
        "success_rate": candidate.success_rate if candidate.answers else None,
        "ejected_for": candidate.ejected_for,
        "reason": candidate.reason,
        "revision": explanation.revision,
        "age": explanation.age,
    }


def _show(explanation: Explanation) -> None:
    short = shorten([candidate.instance.id for candidate in explanation.candidates])
    emit_table(
        COLUMNS,
        [_row(candidate, short) for candidate in explanation.candidates],
        right=("WEIGHT", "IN FLIGHT", "LATENCY", "COST", "GOOD"),
    )
    age = "never proved" if explanation.age is None else f"read {duration_text(explanation.age)} ago"
    doubt = ", perhaps old" if explanation.is_suspect else ""
    panic = ", in panic: most look bad, and none is left alone for it" if explanation.is_panic else ""
    line = (
        f"{count(len(explanation.candidates), 'instance')} at revision {explanation.revision}, {age} "
        f"({explanation.phase}{doubt}), by {explanation.balancer}{panic}"
    )
    emit((line, "dim"))
    told = [f"{name.replace('_', ' ')} {number}" for name, number in explanation.counts.items() if number]
    if told:
        emit((", ".join(told), "dim"))


def _row(candidate: Candidate, short: dict[str, str]) -> list[Segment]:
    instance = candidate.instance
    alone: Segment = "-"
    if candidate.ejected_for is not None:
        wait = duration_text(candidate.ejected_for) if candidate.ejected_for else "until a probe"
        alone = (f"{wait}, {candidate.reason}", "red")
    return [
        short[instance.id],
        instance.address if instance.scheme == "http" else instance.url,
        (candidate.standing, _STYLES[candidate.standing]),
        f"{candidate.weight:g}",
        *("-" if value is None else clean(value) for value in (instance.version, instance.zone)),
        str(candidate.in_flight),
        duration_text(candidate.latency) if candidate.latency else "-",
        duration_text(candidate.cost) if candidate.cost else "-",
        f"{candidate.success_rate:.0%} of {candidate.answers}" if candidate.answers else "-",
        alone,
    ]
