"""``disco deploys SERVICE``: what was deployed when, from the registry's history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..control.hub import hub
from ..model.errors import ConfigError
from ..model.instance import check_service
from ..registry.address import RegistryAddress
from ..registry.history import History, read_history
from ..serving.chronicle import Happening, chronicle
from .errors import Failure
from .ls import shorten
from .output import Segment, clean, count, emit, emit_json, emit_table
from .session import Session

__all__ = ["deploys"]

COLUMNS = ("WHEN", "REVISION", "WHAT", "ID", "VERSION", "HOSTNAME", "SLOT", "WHY")
_STYLES = {"registered": "green", "ready": "green", "unready": "yellow", "draining": "cyan", "lost": "red"}


def deploys(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """What was deployed when: who registered, who was asked to retire and why, who drained, who was lost.

    It is read from the history that etcd keeps until it is compacted, so it reaches back for as long as your cluster is set
    up to (an hour, a day). The order is the registry's. The times are those of the instances' own clocks, and come with what
    they wrote themselves; what nobody wrote a time for (an end) lies between its neighbours.

    With --json each is an object with 'revision', 'at' (or null), 'event' (registered, put back, ready, unready, draining,
    weight, asked, gone, lost), 'detail', 'id', 'version', 'hostname', 'slot', 'host', 'port'.

    \b
    Examples:
      disco deploys experiment
      disco deploys experiment --json | jq -r 'select(.event == "lost")'

    \b
    Exit codes:
      0  done
      1  nothing is known of SERVICE
      2  wrong usage
      4  the registry could not be reached
    """
    session: Session = ctx.obj
    address = session.address
    if address.scheme == "static":
        raise ConfigError(f"{session.source}: static:// has no history; it is fixed")
    check_service(service)
    told, reach = _read(address, service)
    if not told:
        since = f" since revision {reach}, where the history begins" if reach else ""
        raise Failure(f"nothing is known of {service}{since}; 'disco ls' shows what is registered")
    if json:
        for each in told:
            emit_json(_record(each))
        return 0
    _show(told)
    ended = (
        f"history from revision {reach} on; what was before is compacted" if reach else "the whole history"
    )
    emit((f"{count(len(told), 'event')}, {ended}", "dim"))
    return 0


def _read(address: RegistryAddress, service: str) -> tuple[list[Happening], int]:
    shared, keys = hub(), address.keys
    registry = shared.registry(address)

    async def both() -> tuple[History, History]:
        first, second = await asyncio.gather(
            read_history(registry, keys.service(service)), read_history(registry, keys.controls(service))
        )
        return first, second

    instances, asked = shared.background.run(both())
    changes = (*instances.changes, *asked.changes)
    told = chronicle(changes, keys=keys, service=service, hostnames=address.hostnames)
    return told, max(instances.reach, asked.reach)


def _record(happening: Happening) -> dict[str, Any]:
    instance = happening.instance
    return {
        "revision": happening.revision,
        "at": happening.at,
        "event": happening.event,
        "detail": happening.detail,
        "service": instance.service,
        **{name: getattr(instance, name) for name in ("id", "version", "hostname", "slot", "host", "port")},
    }


def _show(told: Sequence[Happening]) -> None:
    short = shorten([each.instance.id for each in told])
    rows: list[list[Segment]] = []
    for each in told:
        instance = each.instance
        texts = (instance.version, instance.hostname, instance.slot)
        rows.append(
            [
                clean(each.at or "-"),
                str(each.revision),
                (each.event, _STYLES.get(each.event, "")),
                short[instance.id],
                *("-" if text is None else clean(text) for text in texts),
                clean(each.detail),
            ]
        )
    emit_table(COLUMNS, rows, right=("REVISION",))
