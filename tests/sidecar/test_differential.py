"""The same bytes to the sidecar, to h11 and to httptools: nothing is let through that either rejects or reads otherwise.

Once straight at the reader, without sockets, and once through a live process, where also what comes out is judged.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disco_sidecar.http.reading import Limits, RequestReader
from disco_sidecar.http.refusal import Refused
from tests.support.properties import thorough

from .corpus import BAD, BAD_BODIES, GOOD
from .judges import Disagreement, Reading, by_h11, by_httptools
from .mutations import requests, slices
from .stage import Stage
from .wire import Client

_number = itertools.count()
SEEDS = [bad.raw for bad in (*BAD, *BAD_BODIES) if len(bad.raw) < 2000] + [good.raw for good in GOOD]


def read(*pieces: bytes) -> list[Reading]:
    """The whole requests that the sidecar's reader hands out. A refusal: none at all, as far as these bytes go."""
    reader = RequestReader(Limits())
    whole: list[Reading] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.messages and reader.messages[0].is_complete:
                message = reader.messages.popleft()
                whole.append(Reading(message.method, message.target, b"".join(message.pieces)))
                if message.wants_tunnel:
                    return whole
    except Refused:
        pass
    return whole


def judge(raw: bytes, ours: list[Reading]) -> None:
    """Whatever we take for a request, both judges must take for the same."""
    for name, judged in (("h11", by_h11), ("httptools", by_httptools)):
        try:
            theirs = judged(raw, count=len(ours))
        except Disagreement as error:
            raise AssertionError(f"let through, but {error}: {raw!r}") from None
        assert theirs == ours, f"{name} reads {raw!r} otherwise"


def compare(raw: bytes, cuts: list[int]) -> None:
    edges = [0, *cuts, len(raw)]
    ours = read(*(raw[start:stop] for start, stop in itertools.pairwise(edges) if start < stop))
    if ours:
        judge(raw, ours)


@pytest.mark.parametrize("raw", SEEDS, ids=lambda raw: repr(raw[:60]))
def test_the_corpus_is_read_as_the_judges_read_it(raw: bytes) -> None:
    compare(raw, [])
    for at in range(1, len(raw), 7):
        compare(raw, [at])


@thorough(600)
@given(data=st.data())
def test_what_the_reader_lets_through_both_judges_take_for_the_same(data: st.DataObject) -> None:
    raw = data.draw(requests())
    compare(raw, data.draw(slices(raw)))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_soak_what_the_reader_lets_through_both_judges_take_for_the_same() -> None:
    test = settings(thorough(200_000), suppress_health_check=list(HealthCheck))(
        given(data=st.data())(lambda data: compare(raw := data.draw(requests()), data.draw(slices(raw))))
    )
    test()


@settings(thorough(250), suppress_health_check=list(HealthCheck))
@given(raw=requests())
def test_what_a_live_sidecar_forwards_both_judges_take_for_the_same(stage: Stage, raw: bytes) -> None:
    live(stage, raw)


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(thorough(20_000), suppress_health_check=list(HealthCheck))
@given(raw=requests())
def test_soak_what_a_live_sidecar_forwards_both_judges_take_for_the_same(stage: Stage, raw: bytes) -> None:
    live(stage, raw)


def live(stage: Stage, raw: bytes) -> None:
    # Told apart by a number in the target: what is cancelled may still arrive while the next example runs.
    mark = f"/experiment/{next(_number)}/"
    raw = raw.replace(b"/experiment/", mark.encode())
    with Client(stage.sidecar.unix) as client:
        client.send(raw)
        client.has_data(timeout=0.03)
        client.half_close()
        client.rest()
    forwarded = [
        request for request in list(stage.origin.requests) if request.is_whole and mark in request.target
    ]
    for request in forwarded:
        sent = Reading(request.method.encode(), request.target.encode("latin-1"), request.body)
        judge(request.raw, [sent])
        assert b"\n" not in request.raw.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"")
        assert len(request.all("host")) == 1
        assert not (request.all("content-length") and request.all("transfer-encoding"))
    if forwarded and mark.encode() in raw.partition(b"\n")[0]:
        judge(
            raw,
            [
                Reading(
                    request.method.encode(), _as_sent(raw, request.target.encode("latin-1")), request.body
                )
                for request in forwarded
            ],
        )


def _as_sent(raw: bytes, target: bytes) -> bytes:
    """On a port of its own the target is the client's, but for absolute-form, which becomes origin-form."""
    first = raw.lstrip(b"\r\n").split(b" ", 2)
    if len(first) == 3 and first[1].startswith(b"http://"):
        return first[1]
    return target


def test_control_the_judges_disagree_about_much_of_the_corpus() -> None:
    """So agreement is worth something: what either rejects or reads otherwise is most of it."""
    differing = 0
    for bad in BAD:
        try:
            judge(bad.raw, by_h11(bad.raw))
        except (AssertionError, Disagreement):
            differing += 1
    assert differing > 100


def test_control_a_good_request_is_read_by_all_three() -> None:
    for good in GOOD:
        (ours,) = read(good.raw)
        assert ours.body == good.body
        judge(good.raw, [ours])
