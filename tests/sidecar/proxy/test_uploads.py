"""A request's body on its way: in pieces, ahead of a connection, against a slow instance, and a second time."""

from __future__ import annotations

from time import monotonic

import pytest

from disco_sidecar.proxy.client import MOST_HELD, MOST_WAITING
from disco_sidecar.proxy.gate import Policy

from .stage import Stage, Transport, answer, paused, request

CHUNKED = "Transfer-Encoding: chunked"


def test_a_last_chunk_that_comes_alone_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", CHUNKED, body=b"5\r\nhello\r\n"))
    instance = stage.attempt().succeed()
    assert instance.take().endswith(b"\r\n\r\n5\r\nhello\r\n")
    client.say(b"0\r\n\r\n")
    assert instance.take() == b"0\r\n\r\n"
    instance.say(answer())
    assert client.take().startswith(b"HTTP/1.1 200 OK\r\n")
    assert not client.is_closing()


@pytest.mark.parametrize("cut", range(1, len(b"5\r\nhello\r\n0\r\nA: b\r\n\r\n")))
def test_a_chunked_body_cut_anywhere_arrives_whole(monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    stage = Stage(monkeypatch, instances=1)
    instance, (_, client) = stage.warm(), stage.client()
    body = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"
    client.say(request("POST", "/web/x", CHUNKED))
    client.say(body[:cut])
    client.say(body[cut:])
    assert instance.take().endswith(b"\r\n0\r\nA: b\r\n\r\n")
    instance.say(answer())
    assert stage.in_flight == (0, 0)
    assert not client.is_closing()


def test_a_client_held_for_a_connection_is_read_again_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bytes may fit into the socket: then nothing is paused, and nothing resumed, by the transport."""
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 1000000"))
    client.say(b"x" * (MOST_HELD + 1))
    assert paused(client)
    stage.attempt().succeed()
    assert not paused(client)


def test_a_client_held_for_a_connection_waits_on_if_the_instance_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 1000000"))
    client.say(b"x" * (MOST_HELD + 1))
    instance = stage.attempt().succeed(Transport(room=1000))
    assert paused(client)
    instance.drain()
    assert not paused(client)


def test_a_body_does_not_pile_up_while_the_service_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.found.clear()
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 10000000"))
    client.say(b"x" * (MOST_HELD + 1))
    assert paused(client)
    stage.loop.tasks[0].step(None)
    stage.attempt().succeed()
    assert not paused(client)


def test_requests_do_not_pile_up_while_the_service_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.found.clear()
    _, client = stage.client()
    client.say(request())
    client.say(request() * MOST_WAITING)
    assert paused(client)


def test_a_body_does_not_pile_up_behind_an_answer_that_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client()
    client.say(request())
    instance = stage.attempt().succeed()
    client.say(request("POST", "/web/y", "Content-Length: 10000000"))
    client.say(b"x" * (MOST_HELD + 1))
    assert paused(client)
    instance.say(answer())
    stage.loop.run()
    assert not paused(client)
    assert b"POST /y" in instance.take()


def test_an_instance_that_takes_no_more_holds_the_client_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 1000000"))
    instance = stage.attempt().succeed(Transport(room=1000))
    client.say(b"x" * 100_000)
    assert paused(client)
    instance.drain()
    assert not paused(client)


def test_a_second_attempt_sends_what_was_kept_and_then_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("PUT", "/web/x", "Content-Length: 10", body=b"01234"))
    first = stage.attempt().succeed()
    assert first.take().endswith(b"\r\n\r\n01234")
    client.say(b"56")
    first.lose(ConnectionResetError("reset"))
    second = stage.attempt().succeed()
    sent = second.take()
    assert sent.endswith(b"\r\n\r\n0123456")
    assert b"X-Disco-Attempt: 2\r\n" in sent
    client.say(b"789")
    assert second.take() == b"789"
    second.say(answer())
    assert client.take().startswith(b"HTTP/1.1 200")
    assert stage.in_flight == (0, 0)


def test_a_client_held_by_the_first_instance_is_read_again_for_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, policy=Policy(replay=1_000_000))
    _, client = stage.client()
    client.say(request("PUT", "/web/x", "Content-Length: 500000"))
    first = stage.attempt().succeed(Transport(room=1000))
    client.say(b"x" * 100_000)
    assert paused(client)
    first.lose(ConnectionResetError("reset"))
    stage.attempt().succeed()
    assert not paused(client)


def test_a_body_that_can_not_be_sent_again_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("PUT", "/web/x", CHUNKED, body=b"5\r\nhello\r\n"))
    stage.attempt().succeed().lose(ConnectionResetError("reset"))
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert client.is_eof
    assert len(stage.attempts) == 1
    assert stage.in_flight == (0, 0)


def test_an_instance_that_takes_nothing_for_too_long_is_to_blame_and_not_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 1000000"))
    stage.attempt().succeed(Transport(room=1000))
    client.say(b"x" * 100_000)
    protocol.sweep(monotonic() + 61)
    assert client.take().startswith(b"HTTP/1.1 504 ")
    assert stage.in_flight == (0, 0)


def test_a_client_that_sends_no_more_for_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 10", body=b"01"))
    instance = stage.attempt().succeed()
    protocol.sweep(monotonic() + 61)
    assert client.take().startswith(b"HTTP/1.1 408 ")
    assert instance.is_aborted
    assert stage.in_flight == (0, 0)


def test_an_early_answer_ends_the_connection_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 100", body=b"01"))
    instance = stage.attempt().succeed()
    instance.say(answer("413 Too Large", body=b"no"))
    sent = client.take()
    assert b"\r\nConnection: close\r\n" in sent
    assert sent.endswith(b"no")
    assert client.is_eof
    assert not client.is_closing()
    client.say(b"x" * 98)
    protocol.sweep(monotonic() + 2.5)
    assert client.is_aborted
    assert instance.is_aborted
    assert stage.in_flight == (0, 0)


def test_what_waits_to_be_expected_is_asked_for_and_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 2", "Expect: 100-continue"))
    instance = stage.attempt().succeed()
    assert b"\r\nExpect: 100-continue\r\n" in instance.take()
    instance.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.say(b"hi")
    assert instance.take() == b"hi"
    instance.say(answer())
    assert client.take().startswith(b"HTTP/1.1 200 OK\r\n")
    assert stage.in_flight == (0, 0)
