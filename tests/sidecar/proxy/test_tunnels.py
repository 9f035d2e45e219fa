"""Bytes both ways: after an upgrade, and raw."""

from __future__ import annotations

import pytest

from disco_sidecar.proxy.client import MOST_HELD

from .stage import Stage, Transport, answer, paused, request

UPGRADE = request("GET", "/web/chat", "Connection: Upgrade", "Upgrade: websocket")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_an_upgrade_becomes_a_tunnel_with_what_came_early(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(UPGRADE + b"early ")
    instance = stage.attempt().succeed()
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in instance.take()
    instance.say(SWITCHED + b"first")
    sent = client.take()
    assert sent.startswith(b"HTTP/1.1 101 ")
    assert sent.endswith(b"\r\n\r\nfirst")
    assert instance.take() == b"early "
    client.say(b"there")
    instance.say(b"back")
    assert (instance.take(), client.take()) == (b"there", b"back")
    assert stage.in_flight == (1, 1)
    assert stage.counts.tunnels == 1
    instance.lose()
    client.settle()
    assert stage.in_flight == (0, 0)
    assert stage.counts.tunnels == 0
    assert not stage.gate.tunnels


@pytest.mark.parametrize("is_first", ["client", "instance"])
def test_either_end_may_end_first(monkeypatch: pytest.MonkeyPatch, is_first: str) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(UPGRADE)
    instance = stage.attempt().succeed()
    instance.say(SWITCHED)
    one, other = (client, instance) if is_first == "client" else (instance, client)
    one.end()
    assert other.is_eof
    assert not one.is_closing()
    other.say(b"still")
    assert one.take().endswith(b"still")
    other.end()
    other.settle()
    one.settle()
    assert stage.in_flight == (0, 0)
    assert not stage.gate.tunnels


def test_a_refused_upgrade_stays_http_and_what_came_behind_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client()
    client.say(UPGRADE + request("GET", "/web/next"))
    instance = stage.attempt().succeed()
    instance.take()
    instance.say(answer("400 No"))
    stage.loop.run()
    assert instance.take().startswith(b"GET /next ")
    instance.say(answer())
    assert client.take().count(b"HTTP/1.1 ") == 2
    assert stage.in_flight == (0, 0)


def test_much_that_comes_early_is_held_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(UPGRADE)
    instance = stage.attempt().succeed()
    instance.take()
    early = b""
    while not paused(client):
        assert len(early) <= 10 * MOST_HELD
        early += b"x" * 30_000
        client.say(b"x" * 30_000)
    instance.say(SWITCHED)
    assert not paused(client)
    assert instance.take() == early


def test_a_held_client_whose_upgrade_is_refused_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client()
    client.say(UPGRADE + b"GET /web/")
    instance = stage.attempt().succeed()
    instance.say(answer("400 No"))
    stage.loop.run()
    assert not paused(client)
    client.say(request()[len("GET /web/") :])
    assert b"GET /x " in instance.take()


def test_an_instance_that_takes_no_more_holds_the_client_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(UPGRADE)
    instance = stage.attempt().succeed(Transport(room=10))
    client.say(b"x" * 70_000)
    instance.say(SWITCHED)
    assert paused(client)
    instance.drain()
    assert not paused(client)


def test_a_client_that_takes_no_more_holds_the_instance_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client(transport=Transport(room=10))
    client.say(UPGRADE)
    instance = stage.attempt().succeed()
    instance.say(SWITCHED + b"x" * 100_000)
    assert paused(instance)
    client.drain()
    assert not paused(instance)


def test_a_client_that_takes_no_more_has_to_take_it_before_its_upgrade_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.client(transport=Transport(room=10))
    client.say(request())
    instance = stage.attempt().succeed()
    instance.say(answer(body=b"x" * 100_000))
    before = len(instance.sent)
    client.say(UPGRADE)
    assert len(instance.sent) == before
    client.drain()
    assert len(instance.sent) > before
    instance.say(SWITCHED)
    assert not paused(instance)


def test_a_drain_waits_for_an_upgrade_that_comes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.client()
    client.say(UPGRADE)
    instance = stage.attempt().succeed()
    stage.gate.drain()
    instance.say(SWITCHED)
    assert not stage.gate.emptied.is_set()
    client.lose()
    assert stage.gate.emptied.is_set()


# ---- raw


def test_a_raw_connection_goes_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    client.say(b"early")
    assert paused(client)
    instance = stage.attempt().succeed()
    assert instance.take() == b"early"
    assert not paused(client)
    instance.say(b"back")
    assert client.take() == b"back"
    assert stage.in_flight == (1, 1)
    client.lose()
    instance.settle()
    assert instance.is_over
    assert stage.in_flight == (0, 0)


def test_a_raw_client_that_ends_its_side_early_still_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    client.end()
    instance = stage.attempt().succeed()
    assert instance.is_eof
    instance.say(b"all")
    instance.end()
    assert client.take() == b"all"
    instance.settle()
    client.settle()
    assert stage.in_flight == (0, 0)


def test_a_raw_client_tries_another_instance_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    stage.attempt().fail()
    instance = stage.attempt().succeed()
    client.say(b"hi")
    assert instance.take() == b"hi"
    client.lose()
    instance.settle()
    assert stage.in_flight == (0, 0)


def test_a_raw_client_is_turned_away_when_there_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.raw()
    stage.attempt().fail()
    assert client.is_aborted
    client.settle()
    assert stage.in_flight == (0, 0)
    assert not stage.gate.tunnels


def test_a_raw_client_of_an_instance_whose_name_can_not_be_one_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, instances=1)
    _, client = stage.raw()
    stage.attempt().fail(UnicodeError("label empty or too long"))
    assert client.is_aborted
    assert stage.in_flight == (0, 0)


def test_a_raw_client_that_leaves_while_it_waits_takes_everything_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    stage.attempt()
    client.lose()
    assert all(task.is_done for task in stage.loop.tasks)
    assert stage.in_flight == (0, 0)
    assert not stage.gate.tunnels


def test_an_instance_that_is_gone_at_once_ends_the_raw_client(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    attempt = stage.attempt()
    attempt.meet().lose()
    attempt.wake()
    client.settle()
    assert client.is_over
    assert stage.in_flight == (0, 0)
    assert not stage.gate.tunnels


def test_raw_bytes_go_at_the_pace_of_the_slower_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    client.say(b"x" * 100_000)
    instance = stage.attempt().succeed(Transport(room=10))
    assert paused(client)
    instance.drain()
    assert not paused(client)


def test_a_drain_waits_for_a_raw_connection_that_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    _, client = stage.raw()
    attempt = stage.attempt()
    stage.gate.drain()
    attempt.succeed()
    assert not stage.gate.emptied.is_set()
    client.lose()
    assert stage.gate.emptied.is_set()
