"""What `disco doctor` makes of what it found: warnings in plain words. Pure, and it says only what can be known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ..model.instance import Instance, State
from ..registry.address import RegistryAddress
from ..registry.protocol import MemberStatus
from ..registry.records import key_text

__all__ = [
    "check_clocks",
    "check_members",
    "check_records",
    "check_services",
    "check_version",
    "explain_refusal",
    "is_refusal",
]

MOST_RECORDS = 5
"""Invalid records that are named one by one."""
CLOCK_TOLERANCE = 60.0
"""Seconds that a registration may lie in our future before we speak of clocks."""

# etcd's own words (api/v3rpc/rpctypes/error.go), the same from 3.4 on.
_NO_USER = "etcdserver: user name is empty"
_NO_LOGIN = "etcdserver: authentication failed"
_NO_PERMISSION = "etcdserver: permission denied"


def is_refusal(error: str) -> bool:
    """Whether *error* is of a member that is well, and that wants another user, another password or another role."""
    return any(words in error for words in (_NO_USER, _NO_LOGIN, _NO_PERMISSION))


def explain_refusal(error: str, address: RegistryAddress, range: str) -> str:
    """Why the registry refuses to have *range* read, and what would help. *error* is what it said."""
    if _NO_USER in error:
        return (
            f"the registry {address} wants a user and a password, and its URL names none: "
            f"{address.scheme}://USER:PASSWORD@HOST:PORT"
        )
    user = f"user {address.user!r}" if address.user else "the user of our certificate"
    if _NO_LOGIN in error:
        return f"the registry {address} refuses {user}: wrong password, or no such user"
    if _NO_PERMISSION in error:
        return (
            f"the registry {address} refuses {user}: it may not read {range}; grant its role readwrite on that prefix "
            f"(etcdctl role grant-permission ROLE readwrite --prefix=true {address.prefix}/), or read if it only calls"
        )
    return f"the registry {address} refuses {user}: {error}"


def check_members(
    members: Sequence[MemberStatus], *, is_readable: bool, is_refused: bool = False
) -> list[str]:
    """What is wrong with the cluster. *is_readable*: whether it answered a linearizable read, which takes a quorum;
    *is_refused*: whether that was for want of a permission, which tells nothing of a quorum.
    """
    warnings = []
    up = [member for member in members if not member.error]
    if up and not is_readable and not is_refused:
        warnings.append(
            f"no quorum: {len(up)} of {len(members)} members answer, and none answers a linearizable read. Callers go on "
            "with what they know, and nothing can be registered"
        )
    for member in members:
        if member.error and not is_refusal(member.error):
            warnings.append(f"member {member.name} can't be reached: {member.error}")
        elif member.error and not is_refused:  # else it is said once for all of them
            warnings.append(f"member {member.name} refuses us: {member.error}")
    warnings += [f"member {member.name} knows of no leader" for member in up if not member.has_leader]
    for version in sorted({member.version for member in up}):
        warning = check_version(version)
        if warning is not None:
            warnings.append(warning)
    if len(versions := sorted({member.version for member in up})) > 1:
        warnings.append(
            f"the members run different versions: {', '.join(versions)}. That is meant for upgrades only"
        )
    return warnings


def check_version(version: str) -> str | None:
    """What is known to be wrong with this version of etcd, if anything is."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return f"a member says that its version is {version!r}, which tells nothing"
    numbers = int(match[1]), int(match[2]), int(match[3])
    if numbers < (3, 4, 0):
        return f"etcd {version} is too old: discoclient is tested with 3.4 and 3.5"
    if numbers < (3, 5, 0):
        return f"etcd {version} belongs to the 3.4 series, which gets no fixes any more: plan an upgrade to 3.5 or later"
    if numbers < (3, 5, 3):
        return f"etcd {version} can lose data in a crash (3.5.0 to 3.5.2): not for production, upgrade to 3.5.6 or later"
    if numbers < (3, 5, 6):
        return f"etcd {version} has known data inconsistency bugs (3.5.0 to 3.5.5): upgrade to 3.5.6 or later"
    return None


def check_records(skipped: Mapping[str, str]) -> list[str]:
    """The keys that no caller sees."""
    warnings = [
        f"the record at {key_text(key)} is skipped: {skipped[key]}" for key in sorted(skipped)[:MOST_RECORDS]
    ]
    if len(skipped) > MOST_RECORDS:
        warnings.append(f"{len(skipped) - MOST_RECORDS} more records are skipped")
    return warnings


def check_services(services: Mapping[str, Iterable[Instance]]) -> list[str]:
    """The services that have nothing ready to call."""
    warnings = []
    for service, instances in services.items():
        states = [instance.state for instance in instances]
        if State.READY not in states:
            counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
            warnings.append(f"service {service} has no ready instance: {counts}")
    return warnings


def check_clocks(instances: Iterable[Instance], now: datetime) -> list[str]:
    """Instances that say they were registered in the future. Nothing is reckoned from that, but ages shown will be wrong."""
    warnings = []
    for instance in instances:
        try:
            ahead = (datetime.fromisoformat(instance.registered_at or "") - now).total_seconds()
        except (ValueError, TypeError):  # not said, not a time, or a time without a zone
            continue
        if ahead > CLOCK_TOLERANCE:
            warnings.append(
                f"{instance.service} {instance.id} says that it was registered {ahead:.0f} s from now: its host's clock, "
                "or this one's, is wrong"
            )
    return warnings
