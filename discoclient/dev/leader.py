"""Who leads? Asked of all, because whoever was cut off does not know yet."""

from __future__ import annotations

from collections.abc import Sequence

from .failures import EtcdRefused
from .member import EtcdMember, MemberStatus

__all__ = ["find_leader"]


def find_leader(members: Sequence[EtcdMember]) -> EtcdMember | None:
    """The leader, or None if nobody who runs is known to lead now."""
    statuses: dict[EtcdMember, MemberStatus] = {}
    for member in members:
        if member.is_wanted and member.is_running:
            try:
                statuses[member] = member.status()
            except (OSError, EtcdRefused):
                continue
    if not statuses:
        return None
    # A member that was paused or cut off believes in the old leader; the highest term is the last election's.
    newest = max(statuses.values(), key=lambda status: status.raft_term)
    # Members go on naming a leader that was killed until they elect another: it is not among those who answered.
    return next((member for member, status in statuses.items() if status.member_id == newest.leader_id), None)
