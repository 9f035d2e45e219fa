"""A race: one attempt and, when it is late, another one at another instance. The first good answer counts.

The shell that carries the attempts asks `late` after ``delay`` seconds, and sends what it gives beside the first; tells each
end by `ended`, until that says that the race is decided; then it breaks off what still runs, and tells that by `broken_off`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..model.outcome import Outcome, OutcomeKind
from .steps import Send

__all__ = ["Race"]


class Race:
    """*start*: gives the second attempt, if there may be one. *judge*: learns from the outcome of one that did not win."""

    def __init__(
        self,
        first: Send,
        delay: float,
        *,
        start: Callable[[], Send | None],
        judge: Callable[[Send, Outcome], None],
    ) -> None:
        self.delay = delay
        self._start = start
        self._judge = judge
        self._running = [first]
        self.is_asked = False
        """Whether it was asked for a second attempt, and there is no need to look at the clock any more."""
        self.abandoned = 0
        """How many were broken off: they may have reached an instance's application."""
        self.winner = first
        """Whose outcome the flow is told."""

    def late(self) -> Send | None:
        """The first has taken ``delay`` seconds: what to send beside it; ``None`` to go on waiting."""
        self.is_asked = True
        second = self._start()
        if second is not None:
            self._running.append(second)
        return second

    def ended(self, send: Send, outcome: Outcome) -> bool:
        """Whether the race is decided by that: it is, by a good answer, and by the last one whatever it is."""
        self._running.remove(send)
        is_good = outcome.kind is OutcomeKind.RESPONSE and not outcome.is_failure
        if is_good or not self._running:
            self.winner = send
            return True
        self._judge(send, outcome)
        return False

    def broken_off(self, now: float) -> None:
        """What still ran was broken off: its instance takes longer than that, and that is all one knows."""
        self.abandoned = len(self._running)
        for send in self._running:
            send.endpoint.outlast(now - send.began, now)
            send.ticket.close()
        self._running.clear()

    def given_up(self) -> None:
        """The call is given up, and nothing is learnt of it."""
        for send in self._running:
            send.ticket.close()
        self._running.clear()
