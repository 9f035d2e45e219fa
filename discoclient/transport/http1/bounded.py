"""What a deadline is to a connection: less time for each wait."""

from __future__ import annotations

from time import monotonic

__all__ = ["Bounded"]


class Bounded:
    """``deadline``: a moment of the monotonic clock, of the request that is under way; ``None``: there is none."""

    __slots__ = ()

    deadline: float | None

    def hurry(self, deadline: float) -> None:
        """An earlier deadline."""
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline  # type: ignore[misc]  # a slot of the heirs'

    @property
    def is_expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and monotonic() >= self.deadline

    def bound(self, timeout: float | None, error: type[Exception]) -> float | None:
        """*timeout*, or what is left until the deadline if that is less; *error* if it has passed."""
        if self.deadline is None:
            return timeout
        left = self.deadline - monotonic()
        if left <= 0:
            raise error("the deadline has passed")
        return left if timeout is None or left < timeout else timeout
