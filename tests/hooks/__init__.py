"""What a client tells its hooks, told by the test: the events of calls, in the order that is promised."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from discoclient.model.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallInfo,
    CallStarted,
    Event,
    Hook,
)
from discoclient.model.instance import Instance
from discoclient.model.outcome import Outcome, OutcomeKind

__all__ = ["NO_ANSWER", "OK", "REFUSED", "Call", "UnknownEvent", "instance", "response"]

REFUSED = Outcome(OutcomeKind.NOT_SENT, 0.001, error="ConnectError")
NO_ANSWER = Outcome(OutcomeKind.NO_ANSWER, 1.0, error="ReadTimeout")


def response(status: int) -> Outcome:
    return Outcome(OutcomeKind.RESPONSE, 0.01, status)


OK = response(200)


class UnknownEvent:
    """One that a later version may send."""


def instance(number: int, **fields: Any) -> Instance:
    defaults: dict[str, Any] = {
        "service": "web",
        "id": f"instance-{number}",
        "host": f"10.0.0.{number}",
        "port": 8000,
    }
    return Instance(**defaults | fields)


class Call:
    """One call, told to *hooks*: started when it is made, then its attempts, then its end."""

    def __init__(
        self, *hooks: Hook, service: str = "web", method: str = "GET", url: str = "http://web/users/1"
    ) -> None:
        self.hooks = hooks
        self.info = CallInfo(service, method, url)
        self.attempts: dict[int, Instance] = {}
        self.tell(CallStarted(self.info))

    def tell(self, event: Event) -> None:
        for hook in self.hooks:
            hook.on_event(event)

    def start(self, at: Instance | None = None, *, is_hedge: bool = False) -> MutableMapping[str, str]:
        """The next attempt. Returns the headers that the hooks put in."""
        number = len(self.attempts) + 1
        self.attempts[number] = at or instance(number)
        event = AttemptStarted(self.info, number, self.attempts[number], is_hedge)
        self.tell(event)
        return event.headers

    def end(self, outcome: Outcome, retry: str | None = None, *, number: int | None = None) -> None:
        """The end of the last attempt, or of *number*."""
        number = number or len(self.attempts)
        self.tell(AttemptEnded(self.info, number, self.attempts[number], outcome, retry))

    def done(
        self,
        status: int | None = None,
        *,
        error: str | None = None,
        by: Instance | None = None,
        seconds: float = 0.1,
    ) -> None:
        self.tell(CallEnded(self.info, len(self.attempts), seconds, status, error, by))
