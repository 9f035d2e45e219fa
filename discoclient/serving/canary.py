"""A new version on trial: what its callers saw of it decides whether it stays. Decisions only; the shell is `serving.trial`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..model.errors import ConfigError
from ..registry.presence import Outcomes, Presence

__all__ = ["Jury", "Threshold", "parse_threshold"]

LEAST_REQUESTS = 20
"""With fewer nothing is decided, one way or the other."""
LEAST_FAILURES = 3
"""One failure of twenty is a rate of 0.05, and says little."""

_EXPRESSION = re.compile(r"\s*error_rate\s*>\s*([0-9]*\.?[0-9]+)\s*(%?)\s*")


@dataclass(frozen=True, slots=True)
class Threshold:
    """The highest share of failed requests, 0 to 1, that is fine."""

    error_rate: float

    def __str__(self) -> str:
        return f"error_rate > {self.error_rate:g}"


def parse_threshold(text: str) -> Threshold:
    """The threshold in ``error_rate > 0.02``, or ``> 2%``. Raises `ConfigError`."""
    found = _EXPRESSION.fullmatch(text)
    rate = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= rate < 1:
        raise ConfigError(f"--abort-if is written 'error_rate > 0.02' or 'error_rate > 2%'; got {text!r}")
    return Threshold(rate)


class Jury:
    """Adds up what the callers of *instance* say of it, those included that have gone since."""

    def __init__(self, instance: str, threshold: Threshold) -> None:
        self._instance = instance
        self._threshold = threshold
        self._said: dict[str, Outcomes] = {}

    def heard(self, presences: Mapping[str, Presence]) -> None:
        """All callers there are, by their keys."""
        for key, presence in presences.items():
            outcomes = presence.outcomes.get(self._instance)
            if outcomes is not None:
                self._said[key] = outcomes

    @property
    def total(self) -> Outcomes:
        return Outcomes(
            sum(each.requests for each in self._said.values()),
            sum(each.failures for each in self._said.values()),
        )

    @property
    def objection(self) -> str:
        """Why it must not stay; empty if nothing speaks against it."""
        total = self.total
        if total.requests < LEAST_REQUESTS or total.failures < LEAST_FAILURES:
            return ""
        rate = total.failures / total.requests
        if rate <= self._threshold.error_rate:
            return ""
        return (
            f"its callers saw {total.failures} of {total.requests} requests fail ({rate:.1%}), and {self._threshold} "
            "was to end it"
        )

    @property
    def doubt(self) -> str:
        """Why it can't be decided yet; empty if it can."""
        requests = self.total.requests
        return f"its callers tell of {requests} requests so far" if requests < LEAST_REQUESTS else ""
