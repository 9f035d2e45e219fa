"""Whether a service is well, from what its probes say. It is told and answers: no time, no I/O; see `serving.prober`."""

from __future__ import annotations

from ..model.errors import ConfigError

__all__ = ["Health"]


class Health:
    """The verdict over one service: well or not, and since which probe.

    It begins unwell, because nothing is proved yet. ``successes`` good probes in a row make it well (default 1), ``failures``
    bad ones in a row make it unwell (default 3); what is fewer changes nothing, so that one lost packet takes no instance
    out. Raises `ConfigError` for counts below 1.
    """

    def __init__(self, *, failures: int = 3, successes: int = 1) -> None:
        for name, count in (("failures", failures), ("successes", successes)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ConfigError(f"{name} must be a whole number, 1 or more; got {count!r}")
        self._failures = failures
        self._successes = successes
        self._against = 0
        self.is_well = False
        self.problem = "it was not probed yet"
        """What the newest bad probe found. It stays when a good one follows."""

    @property
    def is_doubted(self) -> bool:
        """Whether it counts as well, and the newest probe says otherwise."""
        return self.is_well and self._against > 0

    def record(self, problem: str | None) -> bool:
        """Take in one probe, with what it found wrong (``None``: nothing). Whether the verdict changed with it."""
        if problem is not None:
            self.problem = problem
        if (problem is None) is self.is_well:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._failures if self.is_well else self._successes):
            return False
        self._against = 0
        self.is_well = not self.is_well
        return True
