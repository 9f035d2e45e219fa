"""What takes too long, and what is too much: found by the sweep, whatever the other side does."""

from __future__ import annotations

from time import monotonic

import pytest

from disco_sidecar.proxy.gate import Policy

from .stage import Stage, Transport, answer, request


def test_a_head_has_its_time_from_the_first_byte_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not buy more of it."""
    stage = Stage(monkeypatch)
    protocol, client = stage.client()
    client.say(b"G")
    start = monotonic()
    protocol.sweep(start)
    for passed, byte in ((2.0, b"E"), (4.0, b"T"), (4.9, b" ")):
        client.say(byte)
        protocol.touched = start + passed
        protocol.sweep(start + passed)
        assert not client.is_eof
    protocol.touched = start + 5.2
    protocol.sweep(start + 5.3)
    assert client.take().startswith(b"HTTP/1.1 408 ")
    assert client.is_eof


def test_the_time_of_a_head_begins_anew_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client()
    start = monotonic()
    client.say(b"G")
    protocol.sweep(start)
    client.say(request()[1:])
    stage.attempt().succeed().say(answer())
    client.take()
    client.say(b"G")
    protocol.touched = start + 10.0
    protocol.sweep(start + 10.0)
    assert not client.take()


def test_an_idle_client_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client()
    protocol.sweep(monotonic() + 29.0)
    assert not client.is_closing()
    protocol.sweep(monotonic() + 30.5)
    assert client.is_closing()
    client.settle()
    assert not stage.gate.clients


def test_a_client_that_never_reads_its_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that is closed waits for ever for its last bytes to be taken."""
    stage = Stage(monkeypatch)
    protocol, client = stage.client(transport=Transport(room=10))
    client.say(request("GET", "/web/x", "Connection: close"))
    stage.attempt().succeed().say(answer(body=b"x" * 1000))
    assert client.is_closed
    client.settle()
    assert stage.gate.clients
    protocol.sweep(monotonic() + 61.0)
    client.settle()
    assert not stage.gate.clients


def test_a_slow_client_gets_all_of_a_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client(transport=Transport(room=10))
    client.say(request("POST", "/web/x", "Content-Length: 100", body=b"x"))
    stage.attempt().succeed().say(answer("413 Too Large", body=b"x" * 1000))
    protocol.sweep(monotonic() + 3.0)
    assert not client.is_aborted
    client.drain()
    protocol.sweep(monotonic() + 3.0)
    assert client.is_aborted


def test_a_silent_instance_costs_its_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, instances=1)
    protocol, client = stage.client()
    client.say(request("POST", "/web/x", "Content-Length: 2", body=b"hi"))
    instance = stage.attempt().succeed()
    protocol.sweep(monotonic() + 59.0)
    assert not client.sent
    protocol.sweep(monotonic() + 61.0)
    assert client.take().startswith(b"HTTP/1.1 504 ")
    assert instance.is_aborted
    assert not client.is_closing()
    assert stage.in_flight == (0, 0)


def test_a_client_that_reads_nothing_breaks_its_answer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    protocol, client = stage.client(transport=Transport(room=10))
    client.say(request())
    instance = stage.attempt().succeed()
    instance.say(answer(body=b"x" * 200_000)[:100_000])
    protocol.sweep(monotonic() + 61.0)
    assert client.is_aborted
    assert instance.is_aborted
    assert stage.in_flight == (0, 0)


def test_one_client_too_many_is_told_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, policy=Policy(max_connections=1))
    stage.client()
    protocol, client = stage.client()
    assert client.take().startswith(b"HTTP/1.1 503 ")
    client.say(request())
    assert not client.take()
    protocol.sweep(monotonic() + 2.5)
    client.settle()
    assert len(stage.gate.clients) == 1


def test_draining_finishes_what_is_under_way_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    idle, idle_transport = stage.client()
    _, client = stage.client()
    client.say(request())
    instance = stage.attempt().succeed()
    stage.gate.drain()
    assert not stage.gate.emptied.is_set()
    instance.say(answer())
    assert b"\r\nConnection: close\r\n" in client.take()
    client.settle()
    idle.sweep(monotonic() + 1.5)
    idle_transport.settle()
    assert stage.gate.emptied.is_set()
