"""Taking part in the sockets of the process before: who may, for what, and what is said when it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from disco_sidecar.places import Kind, Listener, Place, parse_place
from disco_sidecar.running import takeover
from disco_sidecar.running.bound import Sockets, close_sockets
from disco_sidecar.running.sockets import open_sockets
from disco_sidecar.running.takeover import Occupied, Offer, ask, is_trusted
from tests.support.ports import free_port


@pytest.fixture
def listener() -> Listener:
    return Listener(Kind.LISTEN, parse_place(str(free_port()), ""), "experiment")


@pytest.fixture
def sockets(listener: Listener) -> Iterator[Sockets]:
    opened = open_sockets([listener], [])
    yield opened
    close_sockets(opened, keep=())


@pytest.fixture
async def told() -> list[tuple[Listener, int]]:
    return []


@pytest.fixture
async def offer(sockets: Sockets, told: list[tuple[Listener, int]]) -> AsyncIterator[Offer]:
    offer = Offer(sockets, asyncio.get_running_loop(), lambda *given: told.append(given))
    offer.begin()
    yield offer
    offer.close()


async def asked(listener: Listener, *, is_heir: bool = False) -> list[socket.socket]:
    """The sockets that are given, as `socket.socket`s which the caller closes."""
    return (await asyncio.to_thread(ask, listener, is_heir=is_heir)).sockets


async def test_another_process_accepts_from_the_same_queue(
    listener: Listener, sockets: Sockets, offer: Offer, told: list[tuple[Listener, int]]
) -> None:
    taken = await asked(listener)
    assert [sock.getsockname() for sock in taken] == [sock.getsockname() for sock in sockets[listener]]
    close_sockets(sockets, keep=offer.given)
    with socket.create_connection(("127.0.0.1", listener.place.port)):
        accepted, _ = taken[0].accept()
        accepted.close()
    for each in taken:
        each.close()
    assert told == [(listener, os.getpid())]


async def test_what_was_given_to_a_process_that_is_gone_counts_no_more(
    listener: Listener, offer: Offer
) -> None:
    code = (
        "import sys; from disco_sidecar.places import *; from disco_sidecar.running.takeover import ask; "
        "ask(Listener(Kind.LISTEN, parse_place(sys.argv[1], ''), 'experiment'))"
    )
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", code, str(listener.place.port)
    )
    assert await asking.wait() == 0
    assert offer.given == set()


async def test_what_lives_and_has_it_counts(listener: Listener, offer: Offer) -> None:
    for each in await asked(listener):
        each.close()
    assert offer.given == {listener}  # this process


async def test_a_sidecar_with_another_meaning_is_refused_with_the_pid_of_the_first(
    listener: Listener, offer: Offer
) -> None:
    other = Listener(Kind.LISTEN, listener.place, "ledger")
    with pytest.raises(
        Occupied, match=rf"pid {os.getpid()}\) listens there for something else: {listener}"
    ) as told:
        await asked(other)
    assert told.value.is_lasting


async def test_an_heir_may_mean_something_else_by_it(listener: Listener, offer: Offer) -> None:
    for each in await asked(Listener(Kind.TCP, listener.place, "ledger"), is_heir=True):
        each.close()


async def test_nobody_there_may_change(listener: Listener) -> None:
    with pytest.raises(Occupied, match="not by a sidecar of this user") as told:
        await asked(listener)
    assert not told.value.is_lasting


async def test_a_port_that_was_chosen_is_for_an_heir_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Listener(Kind.BIND, Place(port=0))
    sockets = open_sockets([chosen], [])
    offer = Offer(sockets, asyncio.get_running_loop(), lambda *given: None)
    offer.begin()
    with pytest.raises(Occupied):
        await asked(chosen)
    monkeypatch.setattr(os, "getppid", os.getpid)
    for each in await asked(chosen, is_heir=True):
        assert each.getsockname() in [sock.getsockname() for sock in sockets[chosen]]
        each.close()
    offer.close()
    close_sockets(sockets, keep=())


async def test_what_was_lent_stays_lent(listener: Listener, sockets: Sockets, offer: Offer) -> None:
    sockets.lent.add(listener)
    taken = await asyncio.to_thread(ask, listener)
    for each in taken.sockets:
        each.close()
    assert taken.is_lent


async def test_a_long_path_can_be_taken_over_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listener = Listener(Kind.BIND, parse_place("unix:" + "x" * 95, ""))
    sockets = open_sockets([listener], [])
    offer = Offer(sockets, asyncio.get_running_loop(), lambda *given: None)
    offer.begin()
    (taken,) = await asked(listener)
    taken.close()
    offer.close()
    close_sockets(sockets, keep=())


async def test_a_name_that_the_predecessor_holds_is_taken_when_it_is_free(
    listener: Listener, sockets: Sockets, offer: Offer
) -> None:
    second = Offer(sockets, asyncio.get_running_loop(), lambda *given: None)
    second.begin()
    offer.close()
    async with asyncio.timeout(5):
        while True:
            try:
                taken = await asked(listener)
            except Occupied:
                await asyncio.sleep(0.01)
            else:
                break
    for each in taken:
        each.close()
    assert (second.given, offer.given) == ({listener}, set())
    second.close()


async def test_one_offer_may_stay_when_the_others_are_withdrawn(listener: Listener, offer: Offer) -> None:
    offer.close(but=listener)
    for each in await asked(listener):
        each.close()
    offer.close()
    with pytest.raises(Occupied):
        await asked(listener)


# ---- who may


def test_only_the_same_user_and_root_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert [is_trusted(user) for user in (1000, 0, 1001, 65534)] == [True, True, False, False]


@pytest.mark.skipif(os.getuid() != 0, reason="another user's process needs root")
async def test_another_users_process_gets_nothing(listener: Listener, offer: Offer) -> None:
    name = takeover._name(listener, 0)
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1].replace('@', chr(0)));"
        "print(*map(len, socket.recv_fds(s, 4096, 8)[:2]))"
    )
    asking = await asyncio.create_subprocess_exec(
        "/usr/bin/env", "python3", "-c", code, name.replace("\0", "@"), stdout=subprocess.PIPE, user=65534
    )
    said, _ = await asking.communicate()
    assert said == b"0 0\n"
    assert offer.given == set()


@contextlib.contextmanager
def _impostor(listener: Listener, answer: bytes) -> Iterator[None]:
    """Somebody who listens where a sidecar would, and answers with a socket and *answer*."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(takeover._name(listener, 0))
        server.listen()

        def serve() -> None:
            asking, _ = server.accept()
            with asking, contextlib.suppress(OSError):  # who asked may be gone
                socket.send_fds(asking, [answer], [server.fileno()])

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield
        serving.join(5)


def test_another_users_offer_is_not_taken(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with _impostor(listener, b"{}"):
        monkeypatch.setattr(takeover, "is_trusted", lambda user: False)
        with pytest.raises(Occupied, match="another user") as told:
            ask(listener)
    assert told.value.is_lasting


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"\xff", json.dumps({"pid": None, "listener": 1}).encode()])
def test_an_answer_in_another_language_is_refused(listener: Listener, answer: bytes) -> None:
    with _impostor(listener, answer), pytest.raises(Occupied, match="does not speak our language"):
        ask(listener)
