"""Events on their way: into the log, quietly, and to a client's hooks, one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from ..model.errors import ConfigError
from ..model.events import (
    BudgetExhausted,
    EjectionSkipped,
    Event,
    Hook,
    InstanceEjected,
    InstancesHeld,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    RequestThrottled,
    SnapshotChanged,
)

__all__ = ["Emitter", "nobody"]

logger = logging.getLogger("discoclient.events")

PAUSE = 10.0
"""Seconds between two lines about the same thing, where it may come with every request."""


def nobody(event: Event) -> None:
    """Where there are no hooks: who would tell them something knows by this that it need not."""


class Emitter:
    """Calls the hooks of one client. What a hook raises is logged, once for each hook and kind of event, and stops nobody."""

    def __init__(self, hooks: object = ()) -> None:
        if isinstance(hooks, str | bytes) or not isinstance(hooks, Iterable):
            raise ConfigError(
                f"hooks= takes a sequence of objects with a method on_event(event); got {hooks!r}"
            )
        self.hooks = tuple(hooks)
        for hook in self.hooks:
            if isinstance(hook, type) or not isinstance(hook, Hook):
                raise ConfigError(f"{hook!r} is no hook: hooks= takes objects with a method on_event(event)")
        if not self.hooks:
            self.tell = nobody  # type: ignore[method-assign]
        self._said: dict[tuple[type, str], float] = {}
        self._failed: set[tuple[int, type]] = set()

    def __call__(self, event: Event) -> None:
        log = _LINES.get(type(event))
        if log is not None and self._may_say(event):
            log(event)
        self.tell(event)

    def tell(self, event: Event) -> None:
        """To the hooks alone: for what comes with every call."""
        for hook in self.hooks:
            try:
                hook.on_event(event)
            except Exception:
                if (id(hook), type(event)) not in self._failed:
                    self._failed.add((id(hook), type(event)))
                    logger.exception("%r failed with %s", hook, type(event).__name__)

    def _may_say(self, event: Event) -> bool:
        if not isinstance(event, BudgetExhausted | EjectionSkipped | RequestThrottled):
            return True
        key, now = (type(event), event.service), monotonic()
        if now - self._said.get(key, -PAUSE) < PAUSE:
            return False
        self._said[key] = now
        return True


def _ejected(event: InstanceEjected) -> None:
    instance = event.instance
    logger.warning(
        "%s: %s (%s) is left alone for %.1f s (%s)",
        event.service,
        instance.address,
        instance.id,
        event.seconds,
        event.reason,
    )


def _skipped(event: EjectionSkipped) -> None:
    logger.info(
        "%s: %s (%s) would be left alone for %s, but not now (%s)",
        event.service,
        event.instance.address,
        event.instance.id,
        event.reason,
        event.because,
    )


def _unejected(event: InstanceUnejected) -> None:
    logger.info("%s: %s (%s) is well again", event.service, event.instance.address, event.instance.id)


def _panic(event: PanicChanged) -> None:
    if event.is_panic:
        logger.warning(
            "%s: %d of %d instances are left alone and more look bad: no more are, the fault is likely elsewhere",
            event.service,
            event.ejected,
            event.total,
        )
    else:
        logger.warning(
            "%s: most instances look well again (%d of %d left alone)",
            event.service,
            event.ejected,
            event.total,
        )


def _budget(event: BudgetExhausted) -> None:
    logger.warning("%s: too many retries of late; not tried again (%s)", event.service, event.reason)


def _throttled(event: RequestThrottled) -> None:
    logger.warning(
        "%s: requests are refused here with probability %.2f (%s)",
        event.service,
        event.probability,
        event.policy,
    )


def _snapshot(event: SnapshotChanged) -> None:
    logger.info(
        "%s: %d instances at revision %d (+%d -%d, %d changed)%s",
        event.service,
        event.total,
        event.revision,
        len(event.added),
        len(event.removed),
        len(event.changed),
        ", perhaps old" if event.is_suspect else "",
    )


def _phase(event: PhaseChanged) -> None:
    logger.info("%s: what is known is %s", event.service, event.phase)


def _held(event: InstancesHeld) -> None:
    logger.warning(
        "%s: %d instances vanished together and did not drain; they are kept as a last resort for %g s",
        event.service,
        len(event.ids),
        event.seconds,
    )


_LINES: dict[type, Callable[..., None]] = {
    InstanceEjected: _ejected,
    EjectionSkipped: _skipped,
    InstanceUnejected: _unejected,
    PanicChanged: _panic,
    BudgetExhausted: _budget,
    RequestThrottled: _throttled,
    SnapshotChanged: _snapshot,
    PhaseChanged: _phase,
    InstancesHeld: _held,
}
