"""The policies: what the caller's author may set. Frozen, and checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError

__all__ = ["OutlierPolicy", "RetryPolicy", "check_seconds"]


LONGEST = 1e9
"""Seconds, about 30 years: what is longer is no duration, and some of the clocks below would not take it."""


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """*value* as a float if it is a usable duration in seconds; `ConfigError` otherwise."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value <= LONGEST
    if not usable or value < 0 or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ConfigError(f"{name} must be a number of seconds, {least}; got {value!r}")
    return float(value)


def _check_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number, {least} or more; got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When and how often a call is tried again, on another instance each time.

    What is tried again: an attempt of which nothing was sent (refused, unreachable, connect timeout, TLS handshake), for any
    method; and an attempt that was sent and got no answer, for an idempotent method (RFC 9110, 9.2.2: GET, HEAD, OPTIONS,
    TRACE, PUT, DELETE) whose body can be sent again. Never once a byte of the answer has reached the caller.

    Args:
        max_attempts: attempts in all, the first included. Default 3 (Google SRE book, "Addressing cascading failures";
            the standard mode of the AWS SDKs).
        max_attempts_sent: of these, how many may have reached an instance. Default 2: RFC 9110, 9.2.2, "a client SHOULD
            NOT automatically retry a failed automatic retry".
        connect_timeout: seconds that one attempt may take to connect; the smaller of this and httpx's own connect
            timeout wins. Default 1.0.
    """

    max_attempts: int = 3
    max_attempts_sent: int = 2
    connect_timeout: float = 1.0

    def __post_init__(self) -> None:
        _check_count("RetryPolicy.max_attempts", self.max_attempts, 1)
        _check_count("RetryPolicy.max_attempts_sent", self.max_attempts_sent, 1)
        check_seconds("RetryPolicy.connect_timeout", self.connect_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierPolicy:
    """When an endpoint that keeps failing is left alone for a while (outlier detection, passive).

    Args:
        consecutive_failures: failed attempts in a row after which an endpoint is ejected. Default 5 (Envoy
            ``consecutive_5xx``, Finagle failure accrual). A failure to connect ejects at once.
        base_ejection: seconds of the first ejection; it doubles with each further one, with equal jitter. Default 5.0
            (Finagle ``markDeadFor``).
        max_ejection: seconds that an ejection may grow to. Default 300.0 (Envoy ``max_ejection_time``).
        max_ejected: the share of endpoints that may be ejected at once; one of several may always be, and 0 turns ejection
            off. Default 0.5 (Envoy's panic threshold): when more look bad, the detector is distrusted and not the fleet.
    """

    consecutive_failures: int = 5
    base_ejection: float = 5.0
    max_ejection: float = 300.0
    max_ejected: float = 0.5

    def __post_init__(self) -> None:
        _check_count("OutlierPolicy.consecutive_failures", self.consecutive_failures, 1)
        check_seconds("OutlierPolicy.base_ejection", self.base_ejection)
        check_seconds("OutlierPolicy.max_ejection", self.max_ejection)
        if self.max_ejection < self.base_ejection:
            raise ConfigError("OutlierPolicy.max_ejection must not be smaller than base_ejection")
        share = self.max_ejected
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
            raise ConfigError(f"OutlierPolicy.max_ejected must be a share between 0 and 1; got {share!r}")
