"""Requests on a schedule, whatever becomes of those before: the moments, and the loop that sends at them.

A generator that waits for an answer before it sends the next request slows down with whom it measures, and leaves out just the
requests that would have waited ("coordinated omission"). So the moments are fixed beforehand, and a request's latency counts
from when it *should* have been sent. Nothing of discoclient is imported here: callers that don't use it use this too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from time import monotonic, process_time
from typing import NamedTuple

__all__ = ["Answer", "Report", "Sample", "drive", "poisson"]

_HEAD_START = 0.05


class Answer(NamedTuple):
    error: str | None
    """What went wrong: a status, or the class of an exception."""
    served: float
    """Seconds that the server says it had the request for; 0 if it doesn't."""


class Sample(NamedTuple):
    """One request; seconds."""

    due: float
    """When it should have been sent, counted from the begin."""
    late: float
    """How much later that was done. More than a few milliseconds mean that the generator is what was measured."""
    latency: float
    """From when it should have been sent to its answer or error."""
    served: float
    error: str | None


class Report(NamedTuple):
    began: float
    """`monotonic`, when the schedule began."""
    cpu: float
    """Seconds of CPU that the process spent, from there to the last answer."""
    wall: float
    samples: list[Sample]


def poisson(rate: float, seconds: float, rng: Random) -> list[float]:
    """Moments at which *rate* requests a second are due that know nothing of each other, for *seconds*."""
    moments, at = [], rng.expovariate(rate)
    while at < seconds:
        moments.append(at)
        at += rng.expovariate(rate)
    return moments


async def drive(moments: Sequence[float], send: Callable[[], Awaitable[Answer]]) -> Report:
    """Send at each of the *moments* (ascending) and wait for everything. *send* raises nothing."""
    samples: list[Sample] = []
    began = monotonic() + _HEAD_START

    async def call(moment: float) -> None:
        late = monotonic() - began - moment
        error, served = await send()
        samples.append(Sample(moment, late, monotonic() - began - moment, served, error))

    cpu = process_time()
    async with asyncio.TaskGroup() as group:
        for moment in moments:
            await asyncio.sleep(max(0.0, began + moment - monotonic()))
            group.create_task(call(moment))
    samples.sort()
    return Report(began, process_time() - cpu, monotonic() - began, samples)
