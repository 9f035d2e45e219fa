"""Who leads? Asked of all, because whoever was cut off does not know yet."""

from __future__ import annotations

from collections.abc import Sequence

from .failures import EtcdRefused
from .member import EtcdMember

__all__ = ["find_leader"]


def find_leader(members: Sequence[EtcdMember]) -> EtcdMember | None:
    """The leader, or None if nobody who runs is known to lead now."""
    leading: list[tuple[int, EtcdMember]] = []
    for member in members:
        if member.is_wanted and member.is_running:
            try:
                status = member.status()
            except (OSError, EtcdRefused):
                continue
            # Only its own word: the others go on naming a leader that was killed until they elect another.
            if status.leader_id == status.member_id:
                leading.append((status.raft_term, member))
    # A leader that was paused or cut off believes in its office; the highest term is the last election's.
    return max(leading, key=lambda found: found[0])[1] if leading else None
