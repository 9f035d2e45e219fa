"""Does it answer? A member that listens, or that tells its version, may still be out of touch with all others."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..system.waiting import wait_until
from .failures import EtcdFailed
from .member import EtcdMember

__all__ = ["wait_healthy"]

_READ_TIMEOUT = 2.0


def wait_healthy(members: Sequence[EtcdMember], *, timeout: float) -> None:
    """Wait until each of *members* that should be answering does answer a linearizable read.

    Raises `EtcdFailed` if none should, if one of them died, and after *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    wanted = [member for member in members if member.is_wanted]
    if not wanted:
        raise EtcdFailed("no member is running")
    for member in wanted:
        problem = ""

        def is_healthy(member: EtcdMember = member) -> bool:
            nonlocal problem
            left = max(0.05, deadline - time.monotonic())
            try:
                member.check_healthy(timeout=min(_READ_TIMEOUT, left))
            except (OSError, EtcdFailed) as error:
                member.raise_if_dead()
                problem = str(error)
                return False
            return True

        if not wait_until(is_healthy, timeout=deadline - time.monotonic()):
            raise EtcdFailed(
                f"{member.name} does not answer after {timeout:g} s: {problem}\n{member.log_tail()}"
            )
