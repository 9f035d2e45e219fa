"""``disco watch [SERVICE]``: changes as they happen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Annotated, Any

import typer

from ..model.instance import Instance
from ..registry.codec import to_record
from .ages import age_of, duration_text
from .changes import Change, Contact, changes
from .looking import Found, Look
from .output import STATE_STYLES, Segment, clean, emit, emit_json, is_output_closed, remark
from .session import Session
from .signals import until_stopped

__all__ = ["watch"]

LOOK_AROUND = 0.5
"""Seconds between looks at what nobody tells us: whether the registry is heard, and whether our reader is still there."""
SIGN_STYLES = {"+": "green", "~": "yellow", "-": "red"}


def watch(
    ctx: typer.Context,
    service: Annotated[
        str | None, typer.Argument(metavar="SERVICE", help="Only this one. Default: all, new ones too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """Changes as they happen, one a line, until Ctrl-C.

    First what is there now, then every change: '+' an instance came, '~' it changed (and what), '-' it is gone. If the
    registry can't be reached any more, that is said once on standard error, and so is its return, with all that happened
    meanwhile.

    With --json each line is the instance's record as it is now (or was last), with 'change' ('+', '~' or '-'), 'changed'
    (field: [before, after]), 'revision', 'time' (UTC) and 'age' (seconds since it registered, or null).

    \b
    Examples:
      disco watch
      disco watch experiment
      disco watch --json | jq -c 'select(.change == "-") | [.service, .id]'

    \b
    Exit codes:
      0  ended by Ctrl-C or SIGTERM, or nobody reads the output any more
      2  wrong usage
      4  the registry could not be reached at the start
    """
    session: Session = ctx.obj
    with until_stopped(), Look(session.address, service) as look:
        found = look.first()
        if service is not None and not found.by_key:
            remark(f"nothing is registered as {service} yet")
        show: Mapping[str, Instance] = {}
        contact = Contact()
        latest: Found | None = found
        while not is_output_closed():
            if latest is not None:
                _show(show, latest, as_json=json)
                show = latest.by_key
            if contact.hear(look.is_live, monotonic()):
                _tell(contact, look)
            latest = look.next(timeout=LOOK_AROUND)
    return 0


def _tell(contact: Contact, look: Look) -> None:
    if contact.is_lost:
        age = f", {duration_text(look.age)} old" if look.age is not None else ""
        remark(
            f"the registry does not answer ({look.trouble}); what was shown is the last that is known{age}"
        )
    else:
        remark("the registry answers again")


def _show(before: Mapping[str, Instance], found: Found, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    for change in changes(before, found.by_key):
        if as_json:
            emit_json(_to_json(change, found.revision, now))
        else:
            emit(*_to_line(change, now))


def _to_json(change: Change, revision: int, now: datetime) -> dict[str, Any]:
    return to_record(change.instance) | {
        "age": age_of(change.instance, now),
        "change": change.sign,
        "changed": {name: list(pair) for name, pair in change.fields.items()},
        "revision": revision,
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _to_line(change: Change, now: datetime) -> list[Segment]:
    """``15:04:05 ~ experiment 0f3c... 10.0.0.5:8000 draining  state: ready -> draining``"""
    instance, state = change.instance, str(change.instance.state)
    line: list[Segment] = [
        (f"{now.astimezone():%H:%M:%S} ", "dim"),
        (change.sign, SIGN_STYLES[change.sign]),
        f" {instance.service} {instance.id} {instance.address} ",
        (state, STATE_STYLES[state]),
    ]
    if change.fields:
        what = (f"{name}: {_value(was)} -> {_value(now)}" for name, (was, now) in change.fields.items())
        line.append("  " + clean(", ".join(what)))
    return line


def _value(value: Any) -> str:
    return "-" if value is None else str(value)
