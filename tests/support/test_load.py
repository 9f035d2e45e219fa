"""The load keeps its schedule whatever becomes of its requests, and says so when it could not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.support.load import AsyncLoad, Load, LoadTooSlow

Make = Callable[..., Load | AsyncLoad]


def sync_load(handler: Callable[[httpx.Request], httpx.Response], **options: float) -> Load:
    client = httpx.Client(transport=httpx.MockTransport(handler), base_url="http://test")
    return Load(client, **options)


def async_load(handler: Callable[[httpx.Request], httpx.Response], **options: float) -> AsyncLoad:
    async def handle(request: httpx.Request) -> httpx.Response:
        # In a thread, so that a handler may block as it may in the sync one.
        import asyncio

        return await asyncio.to_thread(handler, request)

    return AsyncLoad(
        lambda: httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://test"), **options
    )


both = pytest.mark.parametrize("make", [sync_load, async_load])


@both
def test_requests_are_sent_on_time_while_the_first_ones_hang(make: Make) -> None:
    released = threading.Event()
    began: list[float] = []

    def hang_at_first(request: httpx.Request) -> httpx.Response:
        began.append(time.monotonic())
        if len(began) <= 2:
            released.wait(10)
        return httpx.Response(200)

    with make(hang_at_first, rate=50.0) as load:
        while len(began) < 20:
            time.sleep(0.01)
        released.set()
    assert len(load.sent) >= 20
    load.assert_none_failed()
    assert load.successes == len(load.sent)
    assert max(sent.ended - sent.began for sent in load.sent) > 0.2, "what hung is counted as long as it hung"


@both
def test_failures_are_collected_and_told(make: Make) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/down":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(503)

    with make(fail, rate=100.0, path="/down") as down:
        while not down.sent:
            time.sleep(0.01)
    with pytest.raises(AssertionError, match=r"requests failed: \{'ConnectError': "):
        down.assert_none_failed()
    with make(fail, rate=100.0, path="/up") as up:
        while not up.sent:
            time.sleep(0.01)
    with pytest.raises(AssertionError, match=r"requests failed: \{'503': "):
        up.assert_none_failed()


def test_no_request_at_all_is_no_success() -> None:
    load = sync_load(lambda request: httpx.Response(200))
    with pytest.raises(AssertionError, match="no request was sent"):
        load.assert_none_failed()


def test_a_schedule_that_was_not_kept_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.load._MOST_THREADS", 1)
    monkeypatch.setattr("tests.support.load._LATE", 0.1)

    def slow(request: httpx.Request) -> httpx.Response:
        time.sleep(0.05)
        return httpx.Response(200)

    with pytest.raises(LoadTooSlow, match="too late"), sync_load(slow, rate=40.0):
        time.sleep(0.4)


def test_an_error_in_the_loads_own_thread_is_not_swallowed() -> None:
    def broken() -> httpx.AsyncClient:
        raise RuntimeError("no client")

    with pytest.raises(RuntimeError, match="no client"), AsyncLoad(broken):
        pass
