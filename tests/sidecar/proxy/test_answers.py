"""An instance's answer on its way: what frames it, what comes behind it, and what becomes of its connection."""

from __future__ import annotations

import pytest

from discoclient.model.policy import RetryPolicy

from .stage import Stage, Transport, answer, paused, request


def test_an_answer_is_passed_on_and_the_connection_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request())
    instance = stage.attempt().succeed()
    sent = instance.take()
    assert sent.startswith(b"GET /x HTTP/1.1\r\nHost: web\r\n")
    instance.say(answer("200 OK", body=b"hi"))
    assert client.take().startswith(b"HTTP/1.1 200 OK\r\n")
    assert stage.in_flight == (0, 0)
    assert stage.pools.idle() == 1


@pytest.mark.parametrize("status", ["600 Odd", "999 Denied"])
def test_a_status_of_no_class_is_passed_on_and_counted_as_the_servers(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client()
    client.say(request() * 2)
    instance = stage.attempt().succeed()
    instance.say(answer(status))
    assert client.take().startswith(f"HTTP/1.1 {status}\r\n".encode())
    stage.loop.run()
    assert instance.take().count(b"GET ") == 2
    instance.say(answer())
    assert stage.in_flight == (0, 0)
    assert stage.counts.statuses[5] == 1


@pytest.mark.parametrize(
    "behind",
    [
        b"x",
        b"HTTP/1.1 20",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nevil",
    ],
    ids=["junk", "part of a head", "an answer", "part of an answer"],
)
@pytest.mark.parametrize("is_known", [False, True], ids=["new head", "known head"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_connection_on_which_more_came_than_the_answer_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, behind: bytes, is_known: bool, method: str
) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client()
    client.say(request(method))
    instance = stage.attempt().succeed()
    good = answer("200 OK", "A: b", body=b"" if method == "HEAD" else b"hi")
    if is_known:
        instance.say(good)
        client.take()
        client.say(request(method))
    instance.say(good + behind)
    sent = client.take()
    assert b"evil" not in sent
    assert b"Oops" not in sent
    assert not sent.startswith(b"HTTP/1.1 500")
    assert instance.is_aborted
    assert stage.pools.idle() == 0


def test_a_body_that_a_head_request_must_not_get_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("HEAD"))
    instance = stage.attempt().succeed()
    instance.say(answer(body=b"hello")[:-2])
    assert client.take().endswith(b"\r\n\r\n")
    assert instance.is_aborted


def test_a_change_of_protocol_that_nobody_asked_for_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, retry=RetryPolicy(max_attempts=1))
    _, client = stage.client()
    client.say(request() * 2)
    instance = stage.attempt().succeed()
    instance.say(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert not stage.gate.tunnels
    assert instance.is_aborted


def test_an_instance_that_is_gone_before_it_was_used_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may learn of the end in the same turn as of the connection: then nobody is told of it again."""
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 2", body=b"hi"))
    attempt = stage.attempt()
    attempt.meet().lose(ConnectionResetError("reset"))
    attempt.wake()
    second = stage.attempt()
    assert second is not attempt, "nothing was sent, so that it may be tried again"
    second.succeed().say(answer())
    assert client.take().startswith(b"HTTP/1.1 200")
    assert stage.in_flight == (0, 0)


def test_an_instance_that_speaks_first_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request())
    attempt = stage.attempt()
    attempt.meet().say(b"220 ESMTP\r\n")
    attempt.wake()
    stage.attempt().succeed().say(answer())
    assert client.take().startswith(b"HTTP/1.1 200")


def test_an_idle_connection_that_is_about_to_close_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, instances=1)
    instance, (_, client) = stage.warm(), stage.client()
    instance.end()
    client.say(request("POST", "/web/x", "Content-Length: 2", body=b"hi"))
    assert not instance.take()
    stage.attempt().succeed().say(answer())
    assert client.take().startswith(b"HTTP/1.1 200")


def test_an_instance_that_ends_its_side_has_failed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport would close only when all was sent, and an instance that reads no more never lets it."""
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 1000000", body=b"x" * 100_000))
    stage.attempt().succeed(Transport(room=10)).end()
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.in_flight == (0, 0)


def test_a_connection_that_takes_no_more_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 100000", body=b"x" * 100_000))
    instance = stage.attempt().succeed(Transport(room=10))
    instance.say(answer("403 Forbidden"))
    assert instance.is_aborted
    assert stage.pools.idle() == 0


def test_a_slow_client_holds_the_instance_until_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client(transport=Transport(room=10))
    client.say(request())
    instance = stage.attempt().succeed()
    instance.say(answer(body=b"x" * 200_000)[:100_000])
    assert paused(instance)
    client.drain()
    assert not paused(instance)


def test_a_connection_goes_back_to_be_read_even_if_its_client_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client(transport=Transport(room=10))
    client.say(request())
    instance = stage.attempt().succeed()
    instance.say(answer(body=b"x" * 200_000))
    assert stage.pools.idle() == 1
    assert not paused(instance)


def test_a_connection_held_by_an_interim_answer_goes_back_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client(transport=Transport(room=0))
    client.say(request())
    instance = stage.attempt().succeed()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 60_000 + b"\r\n\r\n"
    instance.say(early * 2 + answer("503 Busy"))
    assert stage.pools.idle() == 1
    assert not paused(instance)


def test_an_answer_that_only_the_end_ends_is_chunked_for_a_client_of_1_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request())
    instance = stage.attempt().succeed()
    instance.say(answer(length=False) + b"one")
    instance.say(b"two")
    instance.end()
    assert client.take().endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert not client.is_closing()
    assert not client.is_eof
    assert stage.in_flight == (0, 0)


def test_an_answer_without_a_length_ends_with_the_connection_for_a_client_of_1_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("GET", "/web/x", "Connection: keep-alive", version="1.0"))
    instance = stage.attempt().succeed()
    instance.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n")
    sent = client.take()
    assert b"\r\nConnection: close\r\n" in sent
    assert sent.endswith(b"\r\n\r\none")
    assert client.is_closed


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_nothing_follows_the_last_answer(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """An answer of 400 to what came behind would be a part of a body that only the connection's end ends."""
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("GET", "/web/x", "Connection: close", version=version))
    instance = stage.attempt().succeed()
    client.say(b"junk that nobody waits for\r\n\r\n")
    instance.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n")
    sent = client.take()
    assert sent.count(b"HTTP/1.1 ") == 1
    assert client.is_closing() or client.is_eof


def test_an_answer_that_breaks_off_breaks_the_clients_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request())
    instance = stage.attempt().succeed()
    instance.say(answer(body=b"hello")[:-2])
    instance.lose(ConnectionResetError("reset"))
    assert client.is_aborted
    assert stage.in_flight == (0, 0)
    assert stage.counts.failed == 1


@pytest.mark.parametrize("when", ["opening", "connecting", "waiting", "answering", "sleeping"])
def test_a_client_that_leaves_takes_everything_with_it(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    stage = Stage(monkeypatch, instances=3)
    if when == "opening":
        stage.found.clear()
    _, client = stage.client()
    client.say(request())
    instance: Transport | None = None
    if when in ("waiting", "answering"):
        instance = stage.attempt().succeed()
    if when == "answering":
        assert instance is not None
        instance.say(answer(body=b"hello")[:-2])
    if when == "sleeping":
        stage.attempt().fail()
        stage.attempt().fail()
    client.lose()
    stage.loop.ring()
    stage.loop.run()
    assert all(task.is_done for task in stage.loop.tasks)
    assert instance is None or instance.is_aborted
    assert stage.in_flight == (0, 0)
    assert not stage.gate.clients


@pytest.mark.parametrize("number", [2, 16, 200])
def test_pipelined_requests_are_answered_in_turn(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client()
    client.say(b"".join(request("GET", f"/web/{each}") for each in range(number)))
    instance = stage.attempt().succeed()
    for each in range(number):
        assert instance.take().startswith(b"GET /%d " % each)
        instance.say(answer(body=b"%d" % each))
        assert client.take().endswith(b"\r\n\r\n%d" % each)
        stage.loop.run()
    assert stage.in_flight == (0, 0)


def test_requests_that_are_refused_in_a_row_take_no_deeper_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("GET", "/") * 5000)
    stage.loop.run()
    assert client.take().count(b"HTTP/1.1 404 ") == 5000


def test_nothing_is_carried_out_after_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of the loop may be due for one more request when the last answer is given."""
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request())
    instance = stage.attempt().succeed()
    client.say(request("GET", "/nobody."))
    instance.say(answer())
    client.say(request("GET", "/nobody.") + request("GET", "/nobody.", "Connection: close") + request())
    stage.gate.is_draining = True
    stage.loop.run()
    client.say(request())
    stage.loop.run()
    assert client.take().count(b"HTTP/1.1 ") == 2


def test_a_deadline_ends_the_call_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for when in ("connecting", "waiting"):
        stage = Stage(monkeypatch)
        _, client = stage.client()
        client.say(request("GET", "/web/x", "X-Disco-Deadline: 50"))
        attempt = stage.attempt()
        instance = attempt.succeed() if when == "waiting" else None
        stage.loop.ring()
        assert client.take().startswith(b"HTTP/1.1 504 ")
        assert instance is None or instance.is_aborted
        assert stage.in_flight == (0, 0)


def test_the_version_in_via_is_that_of_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request("GET", "/web/x", "Connection: keep-alive", version="1.0"))
    instance = stage.attempt().succeed()
    assert b"Via: 1.0 " in instance.take()
    instance.say(answer())
    client.say(request("GET", "/web/x", "Connection: keep-alive", version="1.1"))
    assert b"Via: 1.1 " in _sent(stage)


def _sent(stage: Stage) -> bytes:
    stage.loop.run()
    attempts = [attempt.transport for attempt in stage.attempts if attempt.transport is not None]
    if stage.attempts[-1].transport is None:
        attempts.append(stage.attempts[-1].succeed())
    return b"".join(transport.take() for transport in attempts)


def test_a_retry_leaves_the_first_connection_usable_if_its_answer_was_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(request())
    first = stage.attempt().succeed()
    first.say(answer("503 Busy"))
    assert stage.pools.idle() == 1
    second = stage.attempt().succeed()
    assert second is not first
    second.say(answer())
    sent = client.take()
    assert sent.startswith(b"HTTP/1.1 200 ")
    assert b"X-Disco-Attempts: 2\r\n" in sent
    assert stage.in_flight == (0, 0)
