"""``Retry-After``: who waits, for how long, and who does not. The waits are counted and take no time."""

from __future__ import annotations

import time
from email.utils import formatdate

import httpx
import pytest

from discoclient import RetryPolicy
from discoclient.model.events import AttemptEnded
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import IDEMPOTENT, OTHER, Events, Waits, counts, disco, in_order
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import Behaviour, answer, close_unanswered, refused_port

ASKING = (429, 503)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def busy(retry_after: object, status: int = 503) -> Behaviour:
    return answer(b"busy", status=status, headers={"Retry-After": str(retry_after)})


@pytest.mark.parametrize("status", ASKING)
@pytest.mark.parametrize("method", IDEMPOTENT)
@in_every_shell
async def test_an_idempotent_request_is_tried_elsewhere_when_the_time_has_passed(
    shell: Shell, fleet: Fleet, waits: Waits, status: int, method: str
) -> None:
    servers = in_order(fleet, busy(1, status), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        response = await client.request(method)
    assert response.status_code == 200
    assert response.extensions["disco"].attempts == 2
    assert counts(servers) == [1, 1]
    assert waits == [1.0]


@pytest.mark.parametrize("status", ASKING)
@in_every_shell
async def test_what_is_not_idempotent_or_can_t_be_sent_again_gets_the_answer_at_once(
    shell: Shell, fleet: Fleet, waits: Waits, status: int
) -> None:
    servers = in_order(fleet, busy(1, status), answer())
    async with shell.client(balancer=BySlot()) as client:
        for method in OTHER:
            assert (await client.request(method, content=b"x")).status_code == status
        assert (await client.request("PUT", content=shell.body([b"x"]))).content == b"busy"
    assert counts(servers) == [len(OTHER) + 1, 0]
    assert waits == []


@pytest.mark.parametrize("status", [200, 202, 301, 403, 404, 413, 500])
@in_every_shell
async def test_what_does_not_ask_to_come_back_is_the_caller_s(
    shell: Shell, fleet: Fleet, waits: Waits, status: int
) -> None:
    servers = in_order(fleet, busy(1, status), answer())
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).status_code == status
    assert counts(servers) == [1, 0]
    assert waits == []


@in_every_shell
async def test_no_time_is_no_wait(shell: Shell, fleet: Fleet, waits: Waits) -> None:
    servers = in_order(fleet, busy(0, 429), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).content == b"ok"
    assert counts(servers) == [1, 1]
    assert waits == []


# ---- how long is too long


@pytest.mark.parametrize("seconds", ["2", "3600", "9" * 60])
@in_every_shell
async def test_without_a_deadline_more_than_a_second_is_too_long(
    shell: Shell, fleet: Fleet, waits: Waits, seconds: str
) -> None:
    servers = in_order(fleet, busy(seconds), answer())
    async with shell.client(balancer=BySlot()) as client:
        response = await client.get()
    assert (response.status_code, response.content) == (503, b"busy")
    assert response.extensions["disco"].attempts == 1
    assert counts(servers) == [1, 0]
    assert waits == []


@pytest.mark.parametrize(("most", "waited"), [(5.0, [5.0]), (4.9, []), (0.0, [])])
@in_every_shell
async def test_how_long_is_too_long_is_the_policy_s_to_say(
    shell: Shell, fleet: Fleet, waits: Waits, most: float, waited: list[float]
) -> None:
    servers = in_order(fleet, busy(5), answer(b"ok"))
    async with shell.client(balancer=BySlot(), retry=RetryPolicy(max_retry_after=most)) as client:
        assert (await client.get()).content == (b"ok" if waited else b"busy")
    assert counts(servers) == [1, len(waited)]
    assert waits == waited


@pytest.mark.parametrize("is_client_s", [False, True], ids=["the request's", "the client's"])
@in_every_shell
async def test_with_a_deadline_it_says_how_long_is_too_long(
    shell: Shell, fleet: Fleet, waits: Waits, is_client_s: bool
) -> None:
    servers = in_order(fleet, busy(20), answer(b"ok"))
    client_s, request_s = (600.0, {}) if is_client_s else (None, disco(deadline=600.0))
    async with shell.client(balancer=BySlot(), deadline=client_s) as client:
        assert (await client.get(**request_s)).content == b"ok"
    assert counts(servers) == [1, 1]
    assert waits == [20.0]


@pytest.mark.parametrize("is_client_s", [False, True], ids=["the request's", "the client's"])
@in_every_shell
async def test_what_would_be_after_the_deadline_is_not_waited_for(
    shell: Shell, fleet: Fleet, waits: Waits, is_client_s: bool
) -> None:
    servers = in_order(fleet, busy(3600), answer())
    client_s, request_s = (60.0, {}) if is_client_s else (None, disco(deadline=60.0))
    async with shell.client(balancer=BySlot(), deadline=client_s) as client:
        assert (await client.get(**request_s)).content == b"busy"
    assert counts(servers) == [1, 0]
    assert waits == []


# ---- how it is said


@in_every_shell
async def test_it_may_be_a_date(shell: Shell, fleet: Fleet, waits: Waits) -> None:
    when = formatdate(time.time() + 120, usegmt=True)
    servers = in_order(fleet, busy(when), answer(b"ok"))
    async with shell.client(balancer=BySlot(), retry=RetryPolicy(max_retry_after=200.0)) as client:
        assert (await client.get()).content == b"ok"
    assert counts(servers) == [1, 1]
    assert len(waits) == 1
    assert 30 < waits[0] <= 120


@in_every_shell
async def test_a_date_that_is_far_away_is_too_long(shell: Shell, fleet: Fleet, waits: Waits) -> None:
    servers = in_order(fleet, busy("Fri, 31 Dec 9999 23:59:59 GMT"), answer())
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).content == b"busy"
    assert counts(servers) == [1, 0]
    assert waits == []


@in_every_shell
async def test_a_date_that_has_passed_is_no_wait(shell: Shell, fleet: Fleet, waits: Waits) -> None:
    servers = in_order(fleet, busy("Wed, 21 Oct 2015 07:28:00 GMT", 429), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).content == b"ok"
    assert counts(servers) == [1, 1]
    assert waits == []


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "1, 2",
        "0x10",
        "1e3",
        "Mon, 32 Jan 2024 00:00:00 GMT",
        "Mon, 01 Jan 2024 25:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +9999",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    ],
)
@in_every_shell
async def test_what_is_neither_asks_for_nothing(
    shell: Shell, fleet: Fleet, waits: Waits, nonsense: str
) -> None:
    """As if it were not there: a 503 is tried elsewhere, and a 429 is the caller's."""
    servers = in_order(fleet, busy(nonsense), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).content == b"ok"
        servers[0].behaviour = busy(nonsense, 429)
        assert (await client.get()).status_code == 429
    assert counts(servers) == [2, 1]
    assert waits == []
    assert fleet.in_flight() == 0


# ---- beside the other limits


@in_every_shell
async def test_it_counts_as_sent(shell: Shell, fleet: Fleet, waits: Waits) -> None:
    servers = in_order(fleet, busy(1), busy(1, 429), answer())
    async with shell.client(balancer=BySlot()) as client:
        response = await client.get()
    assert (response.status_code, response.content) == (429, b"busy")
    assert counts(servers) == [1, 1, 0]
    assert waits == [1.0]


@in_every_shell
async def test_with_nobody_else_to_ask_and_without_a_budget_the_answer_is_the_caller_s(
    shell: Shell, fleet: Fleet, waits: Waits
) -> None:
    servers = in_order(fleet, busy(1))
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).content == b"busy"
    more = in_order(fleet, busy(1), answer(), service="other")
    policy = RetryPolicy(budget=0.0, budget_reserve=0.0)
    async with shell.client("other", balancer=BySlot(), retry=policy) as client:
        assert (await client.get()).content == b"busy"
    assert counts(servers) + counts(more) == [1, 1, 0]


@in_every_shell
async def test_hooks_are_told_why(shell: Shell, fleet: Fleet, waits: Waits) -> None:
    events = Events()
    in_order(fleet, busy(1, 429), answer())
    async with shell.client(balancer=BySlot(), hooks=[events]) as client:
        await client.get()
    first, second = events.of(AttemptEnded)
    assert (first.outcome.status, first.outcome.retry_after, first.retry) == (429, 1.0, "overloaded")
    assert (second.outcome.status, second.outcome.retry_after, second.retry) == (200, None, None)


@in_every_shell
async def test_an_instance_that_asks_for_patience_with_429_has_not_failed(
    shell: Shell, fleet: Fleet, waits: Waits
) -> None:
    servers = in_order(fleet, busy(0, 429), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(20):
            assert (await client.get()).content == b"ok"
    assert counts(servers) == [20, 20]
    assert fleet.endpoint(servers[0]).failures == 0


# ---- the wait before a second retry, which nobody asked for


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (RetryPolicy(max_attempts=5), [0.025, 0.05, 0.1]),
        (RetryPolicy(max_attempts=5, backoff_first=8.0, backoff_cap=20.0), [8.0, 16.0, 20.0]),
        (RetryPolicy(max_attempts=5, backoff_first=8.0, backoff_cap=4.0), [4.0, 4.0, 4.0]),
        (RetryPolicy(max_attempts=5, backoff_first=0.0), []),
    ],
    ids=["the defaults", "longer", "capped", "none"],
)
@in_every_shell
async def test_the_first_retry_does_not_wait_and_those_after_it_do_within_bounds_that_double(
    shell: Shell, fleet: Fleet, waits: Waits, policy: RetryPolicy, most: list[float]
) -> None:
    with refused_port() as port:
        for number in range(6):
            fleet.register(port=port, slot=str(number))
        async with shell.client(balancer=BySlot(), retry=policy) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get()
    assert len(waits) == len(most)
    assert all(0 <= wait <= bound for wait, bound in zip(waits, most, strict=True))


@in_every_shell
async def test_who_waits_for_longer_by_himself_does_not_wait_twice(
    shell: Shell, fleet: Fleet, waits: Waits
) -> None:
    servers = in_order(fleet, close_unanswered(), busy(1), answer(b"ok"))
    policy = RetryPolicy(max_attempts_sent=3, backoff_first=0.9, backoff_cap=0.9)
    async with shell.client(balancer=BySlot(), retry=policy) as client:
        assert (await client.get()).content == b"ok"
    assert counts(servers) == [1, 1, 1]
    assert waits == [1.0]
