"""A process with one client in it, and nothing else: ``python -m benchmarks.clients_child KIND CLIENT CORE TARGET``.

KIND is ``asyncio``, ``uvloop`` or ``threads``. It keeps its client, says when it is ready, and takes its turn when a line of
JSON asks for one: ``{"do": "closed", "width": 32, "seconds": 1.0, "warm_up": 0.2}`` (so many requests in flight all the time)
or ``{"do": "open", "rate": 500.0, "seconds": 1.0, "seed": "x"}`` (on a schedule). It ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from random import Random
from time import perf_counter, process_time
from typing import Any

from .clients_calls import ASYNC, SYNC, AsyncCall, SyncCall, Target
from .figures import percentile
from .schedule import Answer, drive, poisson
from .usage import on_core

__all__ = ["main", "summary", "turn_of_tasks", "turn_of_threads"]


def summary(took: Sequence[float], failed: Counter[str], cpu: float, wall: float) -> dict[str, Any]:
    """A turn in JSON; *took*: seconds, of each request that was answered. Raises `RuntimeError` if none was."""
    if not took:
        raise RuntimeError(f"nothing was answered: {dict(failed)}")
    return {
        "requests": len(took),
        "rate": len(took) / wall,
        "p50": percentile(took, 0.5) * 1e3,
        "p99": percentile(took, 0.99) * 1e3,
        "p999": percentile(took, 0.999) * 1e3,
        "cpu": cpu / len(took) * 1e6,
        "busy": cpu / wall,
        "wall": wall,
        "failed": dict(failed),
    }


def _both(warm: dict[str, Any], turn: dict[str, Any]) -> dict[str, Any]:
    """The *turn*, and how many requests the servers had in all."""
    return turn | {"served": warm["requests"] + turn["requests"]}


async def turn_of_tasks(call: AsyncCall, width: int, seconds: float, warm_up: float) -> dict[str, Any]:
    """*width* requests in flight, as fast as answers come. What *warm_up* seconds of the same bring counts for nothing."""

    async def work(over: float, took: list[float], failed: Counter[str]) -> None:
        began = perf_counter()
        while True:  # at least once, however late it is
            try:
                await call()
            except Exception as error:
                failed[type(error).__name__] += 1
                ended = perf_counter()
            else:
                ended = perf_counter()
                took.append(ended - began)
            if ended >= over:
                return
            began = ended

    async def load(seconds: float) -> dict[str, Any]:
        took: list[float] = []
        failed: Counter[str] = Counter()
        cpu, began = process_time(), perf_counter()
        await asyncio.gather(*(work(began + seconds, took, failed) for _ in range(width)))
        wall = perf_counter() - began
        return summary(took, failed, process_time() - cpu, wall)

    gc.collect()  # what others left behind in this process is nobody's: each side has its own, and pays for its own
    warm = await load(warm_up)
    return _both(warm, await load(seconds))


def turn_of_threads(calls: Sequence[SyncCall], seconds: float, warm_up: float) -> dict[str, Any]:
    """The same with a thread for each of *calls*; with one, in this thread."""

    def work(call: SyncCall, over: float, took: list[float], failed: Counter[str]) -> None:
        began = perf_counter()
        while True:
            try:
                call()
            except Exception as error:
                failed[type(error).__name__] += 1
                ended = perf_counter()
            else:
                ended = perf_counter()
                took.append(ended - began)
            if ended >= over:
                return
            began = ended

    def load(seconds: float) -> dict[str, Any]:
        told: list[tuple[list[float], Counter[str]]] = [([], Counter()) for _ in calls]
        cpu, began = process_time(), perf_counter()
        jobs = [(call, began + seconds, *into) for call, into in zip(calls, told, strict=True)]
        if len(jobs) == 1:
            work(*jobs[0])
        else:
            threads = [threading.Thread(target=work, args=job) for job in jobs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        wall = perf_counter() - began
        took = [each for some, _ in told for each in some]
        return summary(took, sum((each for _, each in told), Counter()), process_time() - cpu, wall)

    gc.collect()
    warm = load(warm_up)
    return _both(warm, load(seconds))


async def _scheduled(call: AsyncCall, rate: float, seconds: float, seed: str) -> dict[str, Any]:
    async def send() -> Answer:
        try:
            await call()
        except Exception as error:
            return Answer(type(error).__name__, 0.0)
        return Answer(None, 0.0)

    gc.collect()
    report = await drive(poisson(rate, seconds, Random(seed)), send)
    failed = Counter(each.error for each in report.samples if each.error is not None)
    took = [each.latency for each in report.samples if each.error is None]
    late = percentile((each.late for each in report.samples), 0.99) * 1e3
    return summary(took, failed, report.cpu, report.wall) | {"late": late, "served": len(took)}


def _tasks(kind: str, client: str, target: Target) -> None:
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    if kind == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop) as runner:
        stack = AsyncExitStack()
        call = runner.run(stack.enter_async_context(ASYNC[client](target)))
        turns: dict[str, Callable[..., Any]] = {"closed": turn_of_tasks, "open": _scheduled}
        try:
            _serve(lambda do, words: runner.run(turns[do](call, **words)))
        finally:
            runner.run(stack.aclose())


def _threads(client: str, target: Target) -> None:
    with ExitStack() as stack:
        make = stack.enter_context(SYNC[client](target))
        calls: list[SyncCall] = []

        def turn(do: str, words: dict[str, Any]) -> dict[str, Any]:
            assert do == "closed"
            width = words["width"]
            while len(calls) < width:
                calls.append(make())
            return turn_of_threads(calls[:width], words["seconds"], words["warm_up"])

        _serve(turn)


def _serve(turn: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        words = json.loads(line)
        print(json.dumps(turn(words.pop("do"), words)), flush=True)


def main() -> None:
    kind, client, core, target = sys.argv[1:]
    logging.disable(logging.ERROR)
    there = json.loads(target)
    there["ports"] = tuple(there["ports"])
    with on_core(int(core)):  # from here on: what it starts shares it
        if kind == "threads":
            _threads(client, Target(**there))
        else:
            _tasks(kind, client, Target(**there))


if __name__ == "__main__":
    main()
