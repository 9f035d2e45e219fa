"""The policies: what the caller's author may set. Frozen, and checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError

__all__ = [
    "HedgePolicy",
    "OutlierPolicy",
    "RecoveryPolicy",
    "RetryPolicy",
    "SlowStartPolicy",
    "ThrottlePolicy",
    "check_count",
    "check_seconds",
    "check_share",
]


LONGEST = 1e9
"""Seconds, about 30 years: what is longer is no duration, and some of the clocks below would not take it."""


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """*value* as a float if it is a usable duration in seconds; `ConfigError` otherwise."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value <= LONGEST
    if not usable or value < 0 or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ConfigError(f"{name} must be a number of seconds, {least}; got {value!r}")
    return float(value)


def check_count(name: str, value: int, least: int) -> None:
    """`ConfigError` unless *value* is a whole number, *least* or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number, {least} or more; got {value!r}")


def check_share(name: str, value: float) -> None:
    """`ConfigError` unless *value* is between 0 and 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ConfigError(f"{name} must be a share between 0 and 1; got {value!r}")


def _check_number(name: str, value: float, *, least: float) -> None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and least <= value < float("inf")
    if not usable:
        raise ConfigError(f"{name} must be a number, {least:g} or more; got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When and how often a call is tried again. What is tried again at all stands in `calling.retries`, as a table.

    Args:
        max_attempts: attempts in all, the first included. Default 3 (Google SRE book, "Addressing cascading failures";
            the standard mode of the AWS SDKs).
        max_attempts_sent: of these, how many may have reached an instance. Default 2: RFC 9110, 9.2.2, "a client SHOULD
            NOT automatically retry a failed automatic retry".
        connect_timeout: seconds that one attempt may take to connect; the smaller of this and httpx's own connect
            timeout wins. Default 1.0.
        budget: retries as a share of the requests to the service in the last 10 s. Default 0.2 (Finagle's and Linkerd's
            ``RetryBudget``).
        budget_reserve: retries a second that are allowed on top of it, so that few requests can be tried again as well.
            Default 10.0 (the same).
        backoff_first: seconds that the wait before a second retry is drawn from, 0 to this; it doubles from then on. The
            first retry goes to another instance and does not wait (Google SRE). Default 0.025 (gRPC A6 has 0.1 to one
            instance).
        backoff_cap: seconds that this bound may grow to. Default 0.25.
        max_retry_after: seconds that a ``Retry-After`` may ask for, where no deadline says how long the caller waits.
            Default 1.0. What asks for more is not tried again.
    """

    max_attempts: int = 3
    max_attempts_sent: int = 2
    connect_timeout: float = 1.0
    budget: float = 0.2
    budget_reserve: float = 10.0
    backoff_first: float = 0.025
    backoff_cap: float = 0.25
    max_retry_after: float = 1.0

    def __post_init__(self) -> None:
        check_count("RetryPolicy.max_attempts", self.max_attempts, 1)
        check_count("RetryPolicy.max_attempts_sent", self.max_attempts_sent, 1)
        check_seconds("RetryPolicy.connect_timeout", self.connect_timeout)
        check_share("RetryPolicy.budget", self.budget)
        _check_number("RetryPolicy.budget_reserve", self.budget_reserve, least=0)
        check_seconds("RetryPolicy.backoff_first", self.backoff_first, zero=True)
        check_seconds("RetryPolicy.backoff_cap", self.backoff_cap, zero=True)
        check_seconds("RetryPolicy.max_retry_after", self.max_retry_after, zero=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierPolicy:
    """When an endpoint that keeps failing is left alone for a while (outlier detection, passive).

    Args:
        consecutive_failures: failed attempts in a row after which an endpoint is ejected. Default 5 (Envoy
            ``consecutive_5xx``, Finagle failure accrual). A failure to connect, or another service at its address, ejects at
            once.
        min_success_rate: the share of good answers below which an endpoint is ejected; 0 turns this off. Default 0.8 (Finagle's
            and Linkerd's success-rate accrual).
        success_window: seconds over which the success rate is averaged. Default 30.0 (the same).
        min_requests: answers within the window before the success rate counts. Default 5 (Linkerd; Envoy's 100 never come
            together in a small process).
        base_ejection: seconds of the first ejection; it doubles with each further one, with equal jitter. Default 5.0
            (Finagle ``markDeadFor``).
        max_ejection: seconds that an ejection may grow to. Default 300.0 (Envoy ``max_ejection_time``).
        max_ejected: the share of endpoints that may be ejected at once; one of several may always be, and 0 turns ejection
            off. Default 0.5 (Envoy's panic threshold): when more look bad, the detector is distrusted and not the fleet.
    """

    consecutive_failures: int = 5
    min_success_rate: float = 0.8
    success_window: float = 30.0
    min_requests: int = 5
    base_ejection: float = 5.0
    max_ejection: float = 300.0
    max_ejected: float = 0.5

    def __post_init__(self) -> None:
        check_count("OutlierPolicy.consecutive_failures", self.consecutive_failures, 1)
        check_share("OutlierPolicy.min_success_rate", self.min_success_rate)
        check_seconds("OutlierPolicy.success_window", self.success_window)
        check_count("OutlierPolicy.min_requests", self.min_requests, 1)
        check_seconds("OutlierPolicy.base_ejection", self.base_ejection)
        check_seconds("OutlierPolicy.max_ejection", self.max_ejection)
        if self.max_ejection < self.base_ejection:
            raise ConfigError("OutlierPolicy.max_ejection must not be smaller than base_ejection")
        check_share("OutlierPolicy.max_ejected", self.max_ejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStartPolicy:
    """How a newcomer gets its share: little at first, growing evenly, so that cold caches and compilers don't meet full load.

    Args:
        window: seconds from when *we* first saw it until it has its whole share; 0 turns this off. Default 10.0.
        floor: the share of its weight to begin with. Default 0.1 (Envoy's ``min_weight_percent``).

    Off while more than half of a service is new: in a deploy everybody is, and the old ones would be crushed.
    """

    window: float = 10.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_seconds("SlowStartPolicy.window", self.window, zero=True)
        check_share("SlowStartPolicy.floor", self.floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """A second attempt at another instance while the first is still out, the first answer counts. For idempotent requests.

    Args:
        percentile: the request is sent again when it has taken longer than this share of the recent ones. Default 0.95 (Dean
        and
            Barroso, "The tail at scale", 2013).
        budget: such requests as a share of all, in the last 10 s. Default 0.05 (the same; Finagle's ``maxExtraLoad``).
        min_delay: seconds that are waited at least. Default 0.001 (Finagle's ``BackupRequestFilter``).
        min_samples: answers that must be known before anything is hedged. Default 20: fewer have no 95th percentile.
    """

    percentile: float = 0.95
    budget: float = 0.05
    min_delay: float = 0.001
    min_samples: int = 20

    def __post_init__(self) -> None:
        check_share("HedgePolicy.percentile", self.percentile)
        check_share("HedgePolicy.budget", self.budget)
        check_seconds("HedgePolicy.min_delay", self.min_delay, zero=True)
        check_count("HedgePolicy.min_samples", self.min_samples, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottlePolicy:
    """Refuse here what the service would refuse there (adaptive throttling, Google SRE book, "Handling overload").

    A request is refused with probability ``(requests - ratio * accepts) / (requests + 1)``, counted when it is sent.

    Args:
        ratio: requests for each accepted one that are let through. Default 2.0 (the book's K).
        window: seconds that are looked back. Default 120.0 (the book's two minutes).
        max_probability: refused at most, so that a service that is well again is noticed. Default 0.9.
    """

    ratio: float = 2.0
    window: float = 120.0
    max_probability: float = 0.9

    def __post_init__(self) -> None:
        _check_number("ThrottlePolicy.ratio", self.ratio, least=1)
        check_seconds("ThrottlePolicy.window", self.window)
        check_share("ThrottlePolicy.max_probability", self.max_probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPolicy:
    """After a total outage, don't crush the first instance that is back (brpc's ``cluster_recover_policy``).

    While some and fewer than ``min_working`` endpoints are usable, a request is let through with probability
    ``usable / min_working``, until their number has not changed for ``hold`` seconds.

    Args:
        min_working: endpoints that can carry the whole load.
        hold: seconds. Default 3.0 (brpc's example).
    """

    min_working: int
    hold: float = 3.0

    def __post_init__(self) -> None:
        check_count("RecoveryPolicy.min_working", self.min_working, 1)
        check_seconds("RecoveryPolicy.hold", self.hold, zero=True)
