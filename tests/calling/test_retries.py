"""The table of what is tried again: read row by row, and played through the flow."""

from __future__ import annotations

import re

import pytest

from discoclient.calling import retries
from discoclient.calling.retries import RETRIES, Cause, cause_of
from discoclient.calling.steps import Call, End
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.transport.options import IDEMPOTENT
from tests.calling.scene import (
    BUSY,
    EXPIRED,
    GET,
    LOCAL,
    MISDIRECTED,
    NO_ANSWER,
    NOT_SENT,
    OK,
    POST,
    STALE,
    STREAMED_POST,
    STREAMED_PUT,
    Scene,
    answer,
)

CALLS = {"get": GET, "post": POST, "streamed put": STREAMED_PUT, "streamed post": STREAMED_POST}

OVERLOADED = answer(503, retry_after=0.2)
LIMITED = answer(429, retry_after=0.2)

ROWS: dict[str, tuple[Cause, Outcome, set[str], str, float]] = {
    # cause, what happened, which calls are tried again, where, and after how many seconds
    "refused": (Cause.CONNECT, NOT_SENT, set(CALLS), "elsewhere", 0.0),
    "somebody else lives there": (Cause.MISDIRECTED, MISDIRECTED, {"get", "post"}, "elsewhere", 0.0),
    "a used connection was closed": (Cause.STALE, STALE, {"get"}, "same", 0.0),
    "no answer": (Cause.NO_ANSWER, NO_ANSWER, {"get"}, "elsewhere", 0.0),
    "502": (Cause.UNAVAILABLE, answer(502), {"get"}, "elsewhere", 0.0),
    "503": (Cause.UNAVAILABLE, BUSY, {"get"}, "elsewhere", 0.0),
    "504": (Cause.UNAVAILABLE, answer(504), {"get"}, "elsewhere", 0.0),
    "503 with Retry-After": (Cause.OVERLOADED, OVERLOADED, {"get"}, "elsewhere", 0.2),
    "429 with Retry-After": (Cause.OVERLOADED, LIMITED, {"get"}, "elsewhere", 0.2),
}
"""A second telling of the table in `calling.retries`, to compare with."""

NEVER = {
    "200": OK,
    "301": answer(301),
    "404": answer(404),
    "408": answer(408),
    "421 of the application": answer(421),
    "425": answer(425),
    "429 without Retry-After": answer(429),
    "500": answer(500),
    "501": answer(501),
    "505": answer(505),
    "our own side": LOCAL,
    "the deadline passed": EXPIRED,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("row", ROWS)
def test_each_row_for_each_kind_of_call(row: str, call: str) -> None:
    cause, outcome, calls, where, seconds = ROWS[row]
    assert cause_of(outcome) is cause
    scene = Scene(3)
    trace = scene.call([outcome, OK], CALLS[call])
    assert trace.end is End.DELIVER
    if call not in calls:
        assert len(trace.sends) == 1
        assert trace.sleeps == []
        return
    assert trace.numbers == [1, 2]
    assert (trace.ids[0] == trace.ids[1]) == (where == "same")
    assert trace.sends[1].is_fresh == (where == "same")
    assert trace.sleeps == ([seconds] if seconds else [])
    assert scene.ledger.stats()[f"retries.{cause}"] == 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", NEVER)
def test_everything_else_is_the_callers(what: str, call: str) -> None:
    outcome = NEVER[what]
    assert cause_of(outcome) is None
    trace = Scene(3).call([outcome, OK], CALLS[call])
    assert len(trace.sends) == 1
    assert trace.end is End.DELIVER


def test_every_status_is_in_one_row_or_in_none() -> None:
    for status in range(100, 600):
        plain = Cause.UNAVAILABLE if status in (502, 503, 504) else None
        asking = Cause.OVERLOADED if status in (429, 503) else plain
        assert cause_of(answer(status)) is plain
        assert cause_of(answer(status, retry_after=0.0)) is asking


@pytest.mark.parametrize("kind", OutcomeKind)
def test_every_way_to_end_is_in_one_row_or_in_none(kind: OutcomeKind) -> None:
    expected = {
        OutcomeKind.NOT_SENT: Cause.CONNECT,
        OutcomeKind.STALE: Cause.STALE,
        OutcomeKind.NO_ANSWER: Cause.NO_ANSWER,
        OutcomeKind.MISDIRECTED: Cause.MISDIRECTED,
    }
    assert cause_of(Outcome(kind, 0.0, retry_after=1.0)) is expected.get(kind)


def test_what_may_have_arrived_counts_and_what_cannot_have_does_not() -> None:
    assert {cause for cause, rule in RETRIES.items() if not rule.was_sent} == {
        Cause.CONNECT,
        Cause.MISDIRECTED,
        Cause.STALE,
    }
    assert {cause for cause, rule in RETRIES.items() if rule.any_method} == {Cause.CONNECT, Cause.MISDIRECTED}
    assert {cause for cause, rule in RETRIES.items() if not rule.needs_body} == {Cause.CONNECT}
    assert {cause for cause, rule in RETRIES.items() if rule.is_same} == {Cause.STALE}


def test_the_idempotent_methods_are_those_of_the_rfc() -> None:
    assert {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"} == IDEMPOTENT


def test_the_table_in_the_documentation_is_the_one_that_is_played() -> None:
    """What a reader sees must be what happens."""
    lines = (retries.__doc__ or "").splitlines()
    edges = [number for number, line in enumerate(lines) if line.startswith("====")]
    columns = [(found.start(), found.end()) for found in re.finditer("=+", lines[edges[0]])]
    rows: dict[str, list[str]] = {}
    name = ""
    for line in lines[edges[1] + 1 : edges[2]]:
        cells = [
            line[start : end if index < len(columns) - 1 else None].strip()
            for index, (start, end) in enumerate(columns)
        ]
        name = cells[0] or name
        before = rows.setdefault(name, [""] * len(columns))
        rows[name] = [f"{old} {new}".strip() for old, new in zip(before, cells, strict=True)]
    assert set(rows) == set(RETRIES)
    for cause, rule in RETRIES.items():
        _, _, idempotent, others, body, where = rows[cause]
        assert idempotent == "yes"
        assert (others == "yes") == rule.any_method, cause
        assert body == ("again" if rule.needs_body else "any"), cause
        assert ("same instance" in where) == rule.is_same, cause


def test_a_stale_connection_is_replaced_once_and_then_somebody_else_is_asked() -> None:
    trace = Scene(3).call([STALE, NOT_SENT, OK])
    assert trace.numbers == [1, 2, 3]
    assert trace.ids[0] == trace.ids[1] != trace.ids[2]
    assert [send.is_fresh for send in trace.sends] == [False, True, False]


def test_a_stale_connection_says_nothing_about_the_endpoint() -> None:
    scene = Scene(1)
    (endpoint,) = scene.endpoints.values()
    for _ in range(10):
        scene.call([STALE, OK])
    assert endpoint.failures == 0
    assert endpoint.accrual.ejections == 0
    assert endpoint.latency(scene.now) < 0.02
    scene = Scene(2)
    alone = Call(True, True, exclude=frozenset({"instance-1"}), retries=0)
    for outcome in (NO_ANSWER, NO_ANSWER, STALE, NO_ANSWER, STALE, NO_ANSWER, NO_ANSWER):
        scene.call([outcome], alone)
    assert scene.endpoints["instance-0"].is_ejected(scene.now), (
        "five in a row, and no good answer between them"
    )


def test_a_stale_connection_to_one_that_is_leaving_is_followed_by_another_instance() -> None:
    scene = Scene(2)
    seen: list[str] = []

    def answers(send: object) -> Outcome:
        endpoint = send.endpoint  # type: ignore[attr-defined]
        seen.append(endpoint.id)
        if len(seen) == 1:
            endpoint.retire()
            return STALE
        return OK

    trace = scene.call(answers)
    assert len(set(trace.ids)) == 2
    assert not trace.sends[1].is_fresh


def test_never_the_same_instance_twice_but_for_a_stale_connection() -> None:
    for outcome in (NOT_SENT, MISDIRECTED):
        trace = Scene(3).call([outcome] * 9, Call(True, True, retries=8))
        assert len(set(trace.ids)) == len(trace.ids) == 3
