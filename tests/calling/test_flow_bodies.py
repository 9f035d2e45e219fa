"""A call whose body is wanted whole: the flow has it read before it believes the answer. Virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.calling.flow import CallFlow
from discoclient.calling.steps import Call, End, Read, Send, Sleep
from discoclient.model.outcome import Outcome
from discoclient.model.policy import OutlierPolicy
from tests.balancing.fleet import eject
from tests.calling.test_flow import BUSY, EXPIRED, GET, MISDIRECTED, NO_ANSWER, NOT_SENT, OK, POST, World

WHOLE_GET, WHOLE_POST = replace(GET, is_whole=True), replace(POST, is_whole=True)
WHOLE_STREAMED_PUT = replace(GET, is_replayable=False, is_whole=True)


def play(
    flow: CallFlow, answers: Sequence[Outcome], bodies: Sequence[Outcome | None]
) -> tuple[list[Endpoint], int, End]:
    """Who was sent to, how many bodies were to be read, and how it ended. *bodies*: what became of each."""
    sent: list[Send] = []
    reads = 0
    script, ends = iter(answers), iter(bodies)
    try:
        step = next(flow)
        while True:
            match step:
                case Sleep():
                    step = flow.send(None)
                case Read():
                    reads += 1
                    end = next(ends)
                    if end is not None:
                        sent[-1].ticket.close()  # as the shell closes what is broken
                    step = flow.send(end)
                case Send():
                    if sent:
                        sent[-1].ticket.close()
                    sent.append(step)
                    step = flow.send(next(script))
    except StopIteration as stop:
        sent[-1].ticket.close()
        return [send.endpoint for send in sent], reads, stop.value


@pytest.mark.parametrize(
    ("call", "bodies", "attempts"),
    [
        (WHOLE_GET, [None], 1),
        (WHOLE_GET, [NO_ANSWER, None], 2),
        (WHOLE_GET, [NO_ANSWER, NO_ANSWER], 2),
        (WHOLE_GET, [EXPIRED], 1),
        (WHOLE_POST, [NO_ANSWER], 1),
        (WHOLE_STREAMED_PUT, [NO_ANSWER], 1),
    ],
)
def test_a_body_that_breaks_off_is_an_attempt_without_an_answer(
    call: Call, bodies: list[Outcome | None], attempts: int
) -> None:
    world = World()
    sent, reads, end = play(world.call(call), [OK] * attempts, bodies)
    assert len({endpoint.id for endpoint in sent}) == len(sent) == attempts, "each to another one"
    assert reads == attempts
    assert end is End.DELIVER
    assert world.in_flight == 0


@pytest.mark.parametrize("outcome", [BUSY, MISDIRECTED, NOT_SENT, NO_ANSWER])
def test_only_the_body_of_what_will_be_handed_over_is_read(outcome: Outcome) -> None:
    sent, reads, _ = play(World().call(WHOLE_GET), [outcome, OK], [None])
    assert (len(sent), reads) == (2, 1)


def test_a_stream_is_handed_over_as_it_is() -> None:
    sent, reads, _ = play(World().call(GET), [OK], [])
    assert (len(sent), reads) == (1, 0)


def test_the_answer_does_not_speak_for_who_lets_its_body_break_off() -> None:
    world = World(2)
    endpoint, other = world.endpoints.values()
    outlier = OutlierPolicy(consecutive_failures=3, min_success_rate=0)
    call = replace(WHOLE_GET, exclude=frozenset({other.id}))
    for count in range(3):
        assert not endpoint.is_ejected(world.now), count
        play(world.call(call, outlier=outlier), [OK], [NO_ANSWER])
    assert endpoint.is_ejected(world.now)


def test_a_body_that_takes_long_is_no_silence() -> None:
    """Whoever else picks meanwhile sees that it answers. The negative control: one that has not begun to."""
    costs = []
    for outcome in (OK, None):
        world = World(1)
        (endpoint,) = world.endpoints.values()
        play(world.call(WHOLE_GET), [OK], [None])
        flow = world.call(WHOLE_GET)
        step = next(flow)
        if outcome is not None:
            step = flow.send(outcome)
            assert isinstance(step, Read)
        world.now += 8.0
        costs.append(endpoint.cost(world.now))
        flow.close()
    heard, silent = costs
    assert heard < 0.1
    assert silent > 1.0


def test_it_is_learnt_when_the_body_is_there_as_of_then() -> None:
    """With the moment of the head, what was learnt meanwhile would count as from the future, and grow."""
    world = World(1)
    (endpoint,) = world.endpoints.values()
    flow = world.call(WHOLE_GET)
    send = next(flow)
    assert isinstance(send, Send)
    flow.send(OK)
    world.now += 60.0
    play(world.call(WHOLE_GET), [OK], [None])
    with pytest.raises(StopIteration):
        flow.send(None)
    assert endpoint.latency(world.now) == pytest.approx(OK.latency)
    send.ticket.close()
    assert world.in_flight == 0


def test_a_call_that_is_cancelled_while_the_body_is_read_leaves_the_ticket_to_the_body() -> None:
    world = World(1)
    flow = world.call(WHOLE_GET)
    send = next(flow)
    assert isinstance(send, Send)
    flow.send(OK)
    flow.close()
    assert world.in_flight == 1
    send.ticket.close()
    assert world.in_flight == 0


@pytest.mark.parametrize("end", [None, NO_ANSWER])
def test_the_verdict_on_a_probe_does_not_wait_for_its_body(end: Outcome | None) -> None:
    world = World(2)
    endpoint, other = world.endpoints.values()
    eject(endpoint, seconds=10.0)
    world.now = 100.0
    call = replace(WHOLE_GET, exclude=frozenset({other.id}))
    flow = world.call(call)
    send = next(flow)
    assert isinstance(send, Send)
    assert send.ticket.is_probe
    assert endpoint.is_ejected(world.now), "one at a time"
    flow.send(OK)
    assert not endpoint.is_ejected(world.now), "others may come while the body is read"
    failures = endpoint.failures
    with pytest.raises(StopIteration):
        flow.send(end)
    assert endpoint.failures == failures + (end is not None)
    assert endpoint.accrual.is_probing is False
    send.ticket.close()
    assert world.in_flight == 0
