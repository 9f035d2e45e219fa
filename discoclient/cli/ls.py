"""``disco ls [SERVICE]``: the services, or the instances of one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ..model.instance import Instance, State
from ..registry.codec import to_record
from .ages import age_of, age_text, duration_text
from .errors import Failure
from .leaving import Leaving, find_leaving
from .looking import Found, Look
from .output import STATE_STYLES, Segment, clean, count, emit, emit_json, emit_table, remark
from .session import Session

__all__ = ["ls", "shorten"]

SHORTEST_ID = 8
COLUMNS = ("ID", "ADDRESS", "STATE", "VERSION", "ZONE", "WEIGHT", "HOSTNAME", "SLOT", "PID", "GEN", "AGE")
LEAVING_COLUMNS = ("LEFT", "BUSY")


def ls(
    ctx: typer.Context,
    service: Annotated[
        str | None, typer.Argument(metavar="SERVICE", help="Show its instances. Default: all services.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """The services, or the instances of one.

    Without SERVICE: how many instances each service has in each state. With it: its instances, the oldest first; ids are
    shortened as far as they stay unique. GEN is the registry's revision at which one registered: of two on a host, the greater
    one is the newer. If some drain, LEFT is how many of their callers have acknowledged that, and BUSY how many requests
    these still wait for. The line below the table tells the registry's revision and how fresh that is.

    With --json an instance is its record in full, with 'age': seconds since it registered, or null; and, while it
    drains, 'callers', 'acks' (callers that have left) and 'in_flight' (requests that they wait for). A service has 'service',
    'ready', 'unready', 'draining', and the 'age' of its oldest instance.

    \b
    Examples:
      disco ls
      disco ls experiment
      disco ls experiment --json | jq -r 'select(.state == "ready") | "\\(.host):\\(.port)"'

    \b
    Exit codes:
      0  done
      1  no instance of SERVICE is registered
      2  wrong usage
      4  the registry could not be reached
    """
    session: Session = ctx.obj
    with Look(session.address, service) as look:
        found = look.first()
        if service is not None:
            _remark_override(service)
            if not found.by_key:
                raise Failure(
                    f"no instance of {service} is registered{_at(found, look)}; 'disco ls' shows what is"
                )
        instances = [instance for group in found.services.values() for instance in group]
        now = datetime.now(UTC)
        origins = {key.rpartition("/")[2]: origin for key, origin in look.origins.items()}
        leaving = {} if service is None else find_leaving(session.address, service, instances, origins)
        if json:
            rows = _service_records(found, now) if service is None else _records(instances, now, leaving)
            for row in rows:
                emit_json(row)
            return 0
        if service is None:
            _show_services(found)
            what = f"{count(len(found.services), 'service')}, {count(len(instances), 'instance')}"
        else:
            _show_instances(instances, now, origins, leaving)
            what = count(len(instances), "instance")
        emit((f"{what}{_at(found, look)}", "dim"))
        if found.skipped:
            remark(
                f"{count(len(found.skipped), 'invalid record')} skipped; 'disco doctor' tells which and why"
            )
    return 0


def shorten(ids: Sequence[str], *, shortest: int = SHORTEST_ID) -> dict[str, str]:
    """Each id with as few of its first characters, *shortest* or more, as tell all of *ids* apart."""
    length = shortest
    while len({id[:length] for id in ids}) < len(set(ids)):
        length += 1
    return {id: id[:length] for id in ids}


def _show_services(found: Found) -> None:
    rows: list[list[Segment]] = []
    for service, instances in found.services.items():
        counts = Counter(str(instance.state) for instance in instances)
        rows.append(
            [
                service,
                *((str(counts[state]), STATE_STYLES[state] if counts[state] else "dim") for state in State),
            ]
        )
    header = ["SERVICE", *(state.upper() for state in State)]
    emit_table(header, rows, right=header[1:])


def _show_instances(
    instances: Sequence[Instance],
    now: datetime,
    origins: Mapping[str, tuple[int, int]],
    leaving: Mapping[str, Leaving],
) -> None:
    short = shorten([instance.id for instance in instances])
    rows: list[list[Segment]] = [
        [
            short[instance.id],
            instance.address if instance.scheme == "http" else instance.url,
            (str(instance.state), STATE_STYLES[instance.state]),
            *(
                "-" if value is None else clean(value)
                for value in (instance.version, instance.zone, f"{instance.weight:g}", instance.hostname)
            ),
            clean(instance.slot),
            "-" if instance.pid is None else str(instance.pid),
            str(origins[instance.id][0]) if instance.id in origins else "-",
            age_text(age_of(instance, now)),
            *(_leaving_cells(leaving.get(instance.id)) if leaving else ()),
        ]
        for instance in instances
    ]
    header = (*COLUMNS, *LEAVING_COLUMNS) if leaving else COLUMNS
    emit_table(header, rows, right=("WEIGHT", "PID", "GEN", "AGE", *LEAVING_COLUMNS))


def _leaving_cells(leaving: Leaving | None) -> tuple[str, str]:
    return ("-", "-") if leaving is None else (f"{leaving.acks}/{leaving.callers}", str(leaving.in_flight))


def _records(
    instances: Sequence[Instance], now: datetime, leaving: Mapping[str, Leaving]
) -> list[dict[str, Any]]:
    return [
        to_record(instance)
        | {"age": age_of(instance, now)}
        | (asdict(leaving[instance.id]) if instance.id in leaving else {})
        for instance in instances
    ]


def _service_records(found: Found, now: datetime) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for service, instances in found.services.items():
        counts = Counter(str(instance.state) for instance in instances)
        ages = [age for instance in instances if (age := age_of(instance, now)) is not None]
        records.append(
            {
                "service": service,
                **{str(state): counts[state] for state in State},
                "age": max(ages, default=None),
            }
        )
    return records


def _at(found: Found, look: Look) -> str:
    if found.is_suspect:
        return f" at revision {found.revision}, says one member without a quorum: it may be old"
    return f" at revision {found.revision}, read {duration_text(look.age or 0.0)} ago"


def _remark_override(service: str) -> None:
    variable = f"DISCO_OVERRIDE_{service.upper().replace('-', '_')}"
    if os.environ.get(variable):
        remark(f"${variable} is set: what is started from here calls that address, and not what is listed")
