"""What is tried again at another instance, and what must not be: the SDK's own rules, over raw sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from discoclient.system.ports import pick_ports
from tests.support.eventually import eventually

from .origin import Exchange, Origin, reply
from .stage import Sidecar, fixed
from .wire import Client, ask, get, post


class Pair:
    """Services of two instances, of which one is bad in its own way; the other is good."""

    def __init__(self) -> None:
        self.good = [Origin() for _ in range(6)]
        self.bad = [Origin() for _ in range(4)]
        self.broken, self.own_421, self.big, self.given_up = self.bad
        self.broken.default = self.big.default = self.given_up.default = self._break
        (dead,) = pick_ports(1)
        self.dead_port = dead
        self.own_421.default = lambda exchange: exchange.send(reply(421, b"mine"))
        services = {
            "dead": [dead, self.good[0]],
            "broken": [self.broken, self.good[1]],
            "own421": [self.own_421],
            "big": [self.big, self.good[4]],
            "second": [self.given_up, self.good[5]],
        }
        self.sidecar = Sidecar(fixed(**services), settings={"balancer": "round_robin"})

    @staticmethod
    def _break(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.close()

    def seen(self, target: str) -> int:
        return sum(len(origin.find(target)) for origin in (*self.good, *self.bad))

    def close(self) -> None:
        self.sidecar.stop()
        for origin in (*self.good, *self.bad):
            origin.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    try:
        yield pair
    finally:
        pair.close()


def test_a_refused_connection_is_tried_elsewhere_whatever_the_method(pair: Pair) -> None:
    """Nothing was sent, so a POST is as safe as a GET."""
    for number in range(10):
        answer = ask(pair.sidecar.address, post("/dead/x", b"abcd") if number % 2 else get("/dead/x"))
        assert (answer.status, answer.body) == (200, b"ok")
    assert all(request.body in (b"", b"abcd") for request in pair.good[0].requests)
    assert len(pair.good[0].requests) == 10


def test_a_get_that_was_broken_off_is_tried_elsewhere_and_a_post_is_not(pair: Pair) -> None:
    gets = [ask(pair.sidecar.address, get("/broken/x")) for _ in range(6)]
    assert [answer.status for answer in gets] == [200] * 6
    assert "2" in [answer.get("x-disco-attempts") for answer in gets], "the broken one was tried"
    retried = [request for request in pair.good[1].requests if request.get("x-disco-attempt")]
    assert retried
    assert {request.get("x-disco-attempt") for request in retried} == {"2"}
    before = len(pair.broken.requests) + len(pair.good[1].requests)
    posts = [ask(pair.sidecar.address, post("/broken/x", b"abcd")) for _ in range(6)]
    assert len(pair.broken.requests) + len(pair.good[1].requests) == before + 6, (
        "one request each, wherever it went"
    )
    assert {answer.status for answer in posts} <= {200, 502}
    assert all(int(answer.get("x-disco-attempts")) == 1 for answer in posts)


def test_a_put_with_a_small_body_is_tried_again_with_the_whole_body(pair: Pair) -> None:
    body = bytes(range(256)) * 200
    answers = [ask(pair.sidecar.address, post("/broken/put", body, method="PUT")) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 6
    assert pair.broken.requests, "the broken one was tried"
    assert all(request.body == body for request in pair.good[1].requests)


def test_a_put_with_a_body_that_is_not_kept_is_not_tried_again(pair: Pair) -> None:
    """Of 200,000 bytes, and of unknown length and not all here yet."""
    large = post("/big/large", b"x" * 200_000, method="PUT")
    statuses = [ask(pair.sidecar.address, large).status for _ in range(4)]
    assert set(statuses) == {200, 502}
    assert len(pair.big.find("/large")) + len(pair.good[4].find("/large")) == 4


def test_a_put_of_which_a_part_has_gone_out_is_not_tried_with_the_rest_alone(pair: Pair) -> None:
    statuses = []
    for _ in range(4):
        with Client(pair.sidecar.address) as client:
            client.send(
                b"PUT /big/parts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
            )
            before = len(statuses) + 1
            eventually(lambda wanted=before: pair.seen("/parts") >= wanted, what="the head has arrived")
            statuses.append(client.send(b"4\r\nefgh\r\n0\r\n\r\n").reply().status)
    assert set(statuses) == {200, 502}
    assert [request.body for request in pair.good[4].find("/parts")] == [b"abcdefgh"] * statuses.count(200)


def test_a_421_of_the_applications_own_is_its_answer(pair: Pair) -> None:
    answer = ask(pair.sidecar.address, get("/own421/x"))
    assert (answer.status, answer.body) == (421, b"mine")
    assert len(pair.own_421.requests) == 1


def test_a_request_that_is_itself_a_retry_is_not_tried_again(pair: Pair) -> None:
    """One layer retries: an SDK in front has done so already."""
    answers = [ask(pair.sidecar.address, get("/second/x", "X-Disco-Attempt: 2")) for _ in range(8)]
    statuses = [answer.status for answer in answers]
    assert 502 in statuses, "the broken one was tried, once"
    assert len(pair.given_up.requests) + len(pair.good[5].requests) == 8


def test_control_the_same_request_without_that_header_is_tried_again(pair: Pair) -> None:
    assert [ask(pair.sidecar.address, get("/second/x")).status for _ in range(8)] == [200] * 8
    assert pair.given_up.requests


def test_an_instance_that_is_killed_costs_no_request() -> None:
    (port,) = pick_ports(1)
    with Origin() as stays, Origin(port=port) as goes, Sidecar(fixed(experiment=[stays, goes])) as sidecar:
        with Client(sidecar.address) as client:
            for number in range(120):
                if number == 40:
                    assert goes.requests
                    goes.close()
                # Right behind the kill a POST may have been sent before the end is seen: not tried again.
                is_get = number % 2 or 40 <= number < 50
                request = get("/experiment/x") if is_get else post("/experiment/x", b"abcd")
                assert client.send(request).reply().status == 200, number
        assert len(stays.requests) + len(goes.requests) >= 120


def test_a_kept_connection_that_the_instance_has_closed_costs_no_request_that_may_be_sent_again() -> None:
    def answer(exchange: Exchange) -> None:
        """Says it keeps the connection, and does not."""
        exchange.read_body()
        exchange.send(reply())
        exchange.close()

    with Origin() as origin, Sidecar(fixed(experiment=[origin])) as sidecar:
        origin.default = answer
        for number in range(40):
            assert ask(sidecar.address, get("/experiment/x")).status == 200, number
        assert len(origin.requests) == 40
