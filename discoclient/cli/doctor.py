"""``disco doctor``: what is configured, what is reachable, and what is wrong, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from .ages import duration_text
from .checks import is_refusal
from .errors import UNREACHABLE, Failure
from .output import Segment, clean, count, emit, emit_json, emit_table
from .session import Session

if TYPE_CHECKING:
    from .examination import Examination

__all__ = ["doctor"]


def doctor(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object with all of it.")] = False,
) -> int:
    """What is configured, what is reachable, and what is wrong, in plain words.

    Shows the configuration in effect (never a password), the versions of what discoclient stands on, each member of the
    registry (reachable, version, leader, latency, revision), and how long a linearizable read takes. Warns of members that
    are down, a lost quorum, versions of etcd with known bugs, records that are skipped, and services without a ready
    instance; fails if distributions overwrite each other. Changes nothing.

    \b
    Examples:
      disco doctor
      disco --registry etcds://etcd-1:2379,etcd-2:2379?ca=ca.pem doctor --json | jq .warnings

    \b
    Exit codes:
      0  the registry can be reached; there may be warnings
      2  wrong usage, or a registry URL that can't be read
      4  the registry can't be reached, or refuses our user
    """
    from .examination import examine  # only now: the other commands start without it

    session: Session = ctx.obj
    found = examine(session)
    if json:
        emit_json(found.to_json())
    else:
        _show(found)
    if found.is_refused:
        raise Failure(found.problem, UNREACHABLE)
    if found.problem:
        raise Failure(f"the registry {found.address} can't be reached: {found.problem}", UNREACHABLE)
    return 0


def _show(found: Examination) -> None:
    _show_pairs("versions", found.versions)
    _show_pairs(
        "configuration",
        {"registry": f"{found.address} (from {found.source})", "prefix": found.address.prefix}
        | found.environment,
    )
    _show_registry(found)
    _show_services(found)
    emit()
    if not found.warnings:
        emit(("no warnings", "green"))
        return
    emit((count(len(found.warnings), "warning"), "bold yellow"))
    for warning in found.warnings:
        emit("  - " + clean(warning))


def _show_pairs(title: str, pairs: Mapping[str, str]) -> None:
    if title != "versions":
        emit()
    emit((title, "bold"))
    width = max(map(len, pairs))
    for name, value in pairs.items():
        emit(f"  {name.ljust(width)}  {value}")


def _show_registry(found: Examination) -> None:
    emit()
    emit(("registry", "bold"))
    rows: list[list[Segment]] = []
    for member in found.members:
        if member.error:
            state = "refuses us" if is_refusal(member.error) else "down"
            rows.append([f"  {member.name}", (state, "red"), "-", "-", "-", "-"])
            continue
        role = "leader" if member.is_leader else "follower" if member.has_leader else "no leader"
        latency = duration_text(member.latency)
        rows.append(
            [f"  {member.name}", ("up", "green"), clean(member.version), role, str(member.revision), latency]
        )
    if rows:
        emit_table(
            ("  MEMBER", "STATE", "VERSION", "ROLE", "REVISION", "LATENCY"),
            rows,
            right=("REVISION", "LATENCY"),
        )
    if found.read is None:
        emit((f"  a linearizable read {'is refused' if found.is_refused else 'fails'}", "red"))
    elif found.members:
        emit(
            f"  a linearizable read takes {duration_text(found.read_latency)}; revision {found.read.revision}"
        )
    else:
        emit("  fixed addresses; there is no registry to reach")
    if found.sharing:
        emit(f"  one watch per host: {clean(found.sharing)}")


def _show_services(found: Examination) -> None:
    if found.found is None:
        return
    emit()
    emit(("services", "bold"))
    services = found.found.services
    states = Counter(str(instance.state) for group in services.values() for instance in group)
    counts = ", ".join(f"{states[state]} {state}" for state in ("ready", "unready", "draining"))
    emit(
        f"  {count(len(services), 'service')}, {count(states.total(), 'instance')}: {counts}; "
        f"{count(len(found.found.skipped), 'record')} skipped"
    )
