"""Several processes that share a registry, in one: who asks it, who is told, and what happens when somebody fails."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from discoclient.registry.address import RegistryAddress
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Listing
from discoclient.registry.sharing import borrower, lender, tap
from discoclient.registry.sharing.connection import Connection
from discoclient.registry.sharing.frames import (
    Kind,
    Question,
    decode_words,
    encode_batch,
    encode_listing,
    encode_question,
    encode_words,
    head,
)
from discoclient.registry.sharing.place import Claim, Place
from discoclient.registry.sharing.registry import SharedRegistry
from tests.registry.sharing import QUICK, RANGE, URL, Host, a_host
from tests.support.eventually import eventually_async

ELSEWHERE = "/p/control/web/x"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


@pytest.fixture
async def host(folder: Path) -> AsyncIterator[Host]:
    async with a_host(folder) as found:
        yield found
    assert not folder.exists(), "nothing is left behind"


# ---- one for all


async def test_many_workers_have_one_watch_and_all_know_what_comes(host: Host) -> None:
    workers = [await host.start() for _ in range(6)]
    assert [worker.lends for worker in workers] == [True] + [False] * 5
    assert all(worker.borrows for worker in workers[1:])
    assert host.watches == 1
    await host.all_know(await host.add("second"))
    key = await host.add("third")
    await host.all_know(key)
    await host.remove(key)
    await eventually_async(lambda: all(key not in worker.follower.records for worker in workers))
    assert all(worker.own.asked == [] for worker in workers[1:])


async def test_silence_is_asked_about_once_for_all(host: Host) -> None:
    workers = [await host.start() for _ in range(6)]
    asked = workers[0].own.asked
    asked.clear()
    before = [worker.follower.fresh_at or 0.0 for worker in workers]

    def are_fresh() -> bool:
        return all(
            (worker.follower.fresh_at or 0.0) > since + 1.0
            for worker, since in zip(workers, before, strict=True)
        )

    await eventually_async(are_fresh, timeout=5.0, what="a second later all know that they know all")
    assert asked.count("probe") <= 6, "about three silences, whoever asked"
    assert set(asked) == {"probe"}


async def test_what_is_no_service_is_asked_of_the_registry_itself(host: Host) -> None:
    await host.start()
    worker = await host.start()
    await worker.shared.list("/p/control/web/")
    await worker.shared.list("/p/services/")
    await worker.shared.list(f"{RANGE}first")
    await worker.shared.list(RANGE, serializable=True)
    assert worker.own.asked == ["list"] * 4
    await worker.shared.list(RANGE)
    assert worker.own.asked == ["list"] * 4, "the negative control"


async def test_who_is_announced_gets_what_was_read_after_that(host: Host) -> None:
    """A list that was under way before is not its answer, though others get it: see `Rounds`."""
    lending, worker = await host.start(), await host.start()
    gate, plain, lists = asyncio.Event(), host.registry.list, 0

    async def slow(range: str, *, serializable: bool = False) -> Listing:
        nonlocal lists
        lists += 1
        found = await plain(range, serializable=serializable)
        await gate.wait()
        return found

    host.registry.list = slow  # type: ignore[method-assign]
    early = asyncio.ensure_future(lending.shared.list(RANGE))
    await eventually_async(lambda: lists == 1, what="a list is under way")
    key = await host.add("announced")
    late = asyncio.ensure_future(worker.shared.list(RANGE))
    others = [asyncio.ensure_future(worker.shared.list(RANGE)) for _ in range(5)]
    await eventually_async(lambda: len(lending.source._rounds._next) == 1, what="they wait for the next one")
    gate.set()
    assert key not in {entry.key for entry in (await early).entries}
    for listing in [await late, *await asyncio.gather(*others)]:
        assert key in {entry.key for entry in listing.entries}
    assert lists == 2, "one for all six"


async def test_a_watch_that_is_found_wanting_is_replaced_for_all(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands, and delivers nothing: known of servers of old. Who notices doubts it, else the next one would be the same."""
    workers = [await host.start() for _ in range(3)]
    source = workers[0].source
    stream = source._taps[RANGE]._stream
    stream.take = lambda batch: None
    key = await host.add("unheard")
    await host.all_know(key)
    await eventually_async(lambda: all(worker.is_live for worker in workers))
    assert source._taps[RANGE]._stream is not stream
    assert host.watches == 1
    await host.all_know(await host.add("heard"))


async def test_without_a_doubt_the_next_watch_is_as_deaf(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(tap.Tap, "doubt", lambda self, subscriber: None)
    workers = [await host.start() for _ in range(3)]
    source = workers[0].source
    stream = source._taps[RANGE]._stream
    stream.take = lambda batch: None
    await host.all_know(await host.add("unheard"))
    assert source._taps[RANGE]._stream is stream


async def test_a_compacted_history_is_listed_again_and_nobody_is_empty(host: Host) -> None:
    workers = [await host.start() for _ in range(3)]
    await host.registry.set_down(True)
    await eventually_async(lambda: not any(worker.is_live for worker in workers))

    def compact(store: MemoryStore) -> None:
        store.put(f"{RANGE}missed", b"1")
        store.delete(f"{RANGE}first")
        store.compact(store.revision)

    await host.registry.change(compact)
    await host.registry.set_down(False)
    await host.all_know(f"{RANGE}missed")
    await eventually_async(lambda: all(f"{RANGE}first" not in each.follower.records for each in workers))
    assert all(frozenset() not in worker.sets for worker in workers)
    await eventually_async(lambda: all(worker.is_live for worker in workers) and host.watches == 1)


# ---- the lender goes


async def test_when_the_lender_ends_another_one_lends(host: Host) -> None:
    workers = [await host.start() for _ in range(4)]
    await host.stop(workers.pop(0))
    await host.all_know(await host.add("second"))
    await eventually_async(lambda: sum(worker.lends for worker in workers) == 1)
    await eventually_async(lambda: host.watches == 1 and all(worker.is_live for worker in workers))
    assert all(frozenset() not in worker.sets for worker in workers)


async def test_a_lender_that_is_cut_off_is_left_until_it_is_mended(host: Host) -> None:
    workers = [await host.start() for _ in range(3)]
    lending, *others = workers
    lending.own.cut()
    for worker in others:
        await worker.wait_alone()
    key = await host.add("second")
    await eventually_async(lambda: all(key in worker.follower.records for worker in others))
    assert key not in lending.follower.records
    assert f"{RANGE}first" in lending.follower.records, "an old answer beats none"
    lending.own.mend()
    await host.all_know(key)
    await eventually_async(lambda: all(worker.borrows for worker in others), what="they come back")
    await eventually_async(lambda: host.watches == 1 and all(worker.is_live for worker in workers))


async def test_while_nobody_reaches_the_registry_all_keep_what_they_know(host: Host) -> None:
    workers = [await host.start() for _ in range(3)]
    await host.registry.set_down(True)
    await eventually_async(lambda: not any(worker.is_live for worker in workers))
    assert all(worker.follower.records for worker in workers)
    await host.registry.set_down(False)
    await host.all_know(await host.add("second"))
    assert all(len(worker.sets) == 2 for worker in workers)


# ---- somebody else listens


Talk = Callable[[Connection, Place], Any]


@asynccontextmanager
async def impostor(folder: Path, talk: Talk, url: str = URL) -> AsyncIterator[list[Connection]]:
    """Has the lock and listens, and says what *talk* says."""
    place = Place(RegistryAddress.parse(url), folder)
    claim = place.claim()
    assert isinstance(claim, Claim)
    met: list[Connection] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        met.append(connection)
        try:
            await talk(connection, place)
        except (EOFError, OSError, asyncio.CancelledError):
            pass
        finally:
            connection.abort()

    server = await asyncio.start_unix_server(serve, sock=place.listen())
    try:
        yield met
    finally:
        server.close()
        for connection in met:
            connection.abort()
        claim.clear()
        await asyncio.sleep(0)


async def welcome(connection: Connection, place: Place) -> None:
    """As a lender does it."""
    connection.send(Kind.GREETING, 0, encode_words(v=1, pid=os.getpid(), nonce="n"))
    _, _, payload = await connection.receive()
    nonce = decode_words(payload, nonce=str)["nonce"]
    connection.send(Kind.WELCOME, 0, encode_words(proof=place.proof(nonce, "lender")))


def garbage(data: bytes) -> Talk:
    async def talk(connection: Connection, place: Place) -> None:
        connection._writer.write(data)
        await connection.receive()

    return talk


async def wrong_welcome(connection: Connection, place: Place) -> None:
    connection.send(Kind.GREETING, 0, encode_words(v=1, pid=os.getpid(), nonce="n"))
    await connection.receive()
    connection.send(Kind.WELCOME, 0, encode_words(proof="00"))
    await connection.receive()


def after_welcome(kind: Kind, payload: bytes) -> Talk:
    """Answers everything with that."""

    async def talk(connection: Connection, place: Place) -> None:
        await welcome(connection, place)
        while True:
            _, id, _ = await connection.receive()
            connection.send(kind, id, payload)

    return talk


FOREIGN = encode_listing(Listing(9, ()))[:-1]


@pytest.mark.parametrize(
    "talk",
    [
        garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        garbage(os.urandom(64)),
        garbage(head(Kind.GREETING, 0, 1 << 31)),
        garbage(head(Kind.GREETING, 0, 2) + b"[]"),
        garbage(head(Kind.GREETING, 0, 20) + encode_words(v=9, pid=1, nonce="")[:20]),
        wrong_welcome,
        after_welcome(Kind.LISTING, b"short"),
        after_welcome(Kind.LISTING, FOREIGN),
        after_welcome(Kind.PROBED, b""),
        after_welcome(Kind.LIST, b""),
    ],
    ids=["http", "noise", "huge", "list", "cut", "no password", "short", "odd", "other", "question"],
)
async def test_who_hears_nonsense_watches_for_itself_and_says_so(
    host: Host, folder: Path, talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    async with impostor(folder, talk):
        worker = await host.start()
        await worker.wait_alone()
        await host.all_know(await host.add("second"))
        [record] = [each for each in caplog.records if "not shared" in each.getMessage()]
        assert record.levelno == logging.WARNING
        assert "is none of us" in record.getMessage()
    await eventually_async(lambda: worker.lends, what="with the place free it takes it")
    await eventually_async(lambda: worker.is_live and host.watches == 1)


async def test_a_lender_that_says_nothing_at_first_is_left(host: Host, folder: Path) -> None:
    async def silent(connection: Connection, place: Place) -> None:
        await connection.receive()

    async with impostor(folder, silent):
        worker = await host.start()
        await worker.wait_alone()
    await eventually_async(lambda: worker.lends)


@pytest.mark.parametrize("heeded", [True, False], ids=["heeded", "control"])
async def test_a_lender_that_falls_silent_is_left(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch, heeded: bool
) -> None:
    monkeypatch.setattr(borrower, "SILENCE", 0.3 if heeded else 60.0)
    monkeypatch.setattr(borrower, "ANSWER_TIMEOUT", 60.0)

    async def hang(connection: Connection, place: Place) -> None:
        await welcome(connection, place)
        while True:
            kind, id, _ = await connection.receive()
            if kind is Kind.LIST:
                connection.send(Kind.LISTING, id, encode_listing(await host.registry.list(RANGE)))
            elif kind is Kind.WATCH:
                connection.send(Kind.BATCH, id, encode_batch(Batch(host.registry._store.revision)))

    async with impostor(folder, hang):
        worker = await host.start(settings=replace(QUICK, retry=1.0, rest=1.0))
        key = await host.add("second")
        if heeded:
            await worker.wait_alone()
            await host.all_know(key)
        else:
            with pytest.raises(AssertionError):
                await eventually_async(lambda: key in worker.follower.records, timeout=1.0)
    await host.all_know(key)


async def test_a_lender_with_another_password_refuses_and_is_left_alone(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    lending = await host.start()
    other = await host.start(URL.replace("secret", "another"))
    await other.wait_alone()
    assert lending.lends
    assert "another password" in caplog.text
    assert "secret" not in caplog.text
    await host.all_know(await host.add("second"))
    assert host.watches == 2


async def test_a_folder_that_is_not_ours_alone_is_refused_and_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    async with a_host(folder) as host:
        workers = [await host.start() for _ in range(3)]
        for worker in workers:
            await worker.wait_alone()
        await host.all_know(await host.add("second"))
        assert host.watches == 3
        said = [each for each in caplog.records if "open to others" in each.getMessage()]
        assert len(said) == 3, "by each, once"
        assert {each.levelno for each in said} == {logging.WARNING}
        folder.chmod(0o700)
        await eventually_async(lambda: host.watches == 1, what="looked at again, and put right")


# ---- somebody else borrows


async def connected(folder: Path, *, greet: bool = True) -> Connection:
    place = Place(RegistryAddress.parse(URL), folder)
    connection = await Connection.over(place.connect())
    if greet:
        _, _, payload = await connection.receive()
        proof = place.proof(decode_words(payload, nonce=str)["nonce"], "borrower")
        connection.send(Kind.HELLO, 0, encode_words(proof=proof, nonce="n"))
        assert (await connection.receive())[0] is Kind.WELCOME
    return connection


@pytest.mark.parametrize("greet", [True, False], ids=["welcome", "stranger"])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        head(Kind.LIST, 1, 1 << 31),
        head(Kind.LIST, 1, 2) + b"{}",
        head(Kind.LISTING, 1, 0),
        head(Kind.WATCH, 1, 45) + encode_question(Question("/p/clients/web/"))[:45],
    ],
    ids=["http", "huge", "empty", "answer", "cut"],
)
async def test_a_borrower_that_talks_nonsense_is_left_and_the_others_notice_nothing(
    host: Host, folder: Path, data: bytes, greet: bool
) -> None:
    workers = [await host.start() for _ in range(2)]
    connection = await connected(folder, greet=greet)
    connection._writer.write(data)
    with pytest.raises((EOFError, OSError)):
        while True:
            await connection.receive()
    connection.abort()
    await host.all_know(await host.add("second"))
    assert workers[1].borrows
    assert all(worker.is_live for worker in workers)


@pytest.mark.parametrize(
    "range", ["/p/clients/web/", "/p/services/", "/", "", "/p/services/web/x", "/p/services/a/b/"]
)
async def test_nobody_gets_at_anything_but_services(host: Host, folder: Path, range: str) -> None:
    await host.start()
    connection = await connected(folder)
    connection.send(Kind.LIST, 1, encode_question(Question(range)))
    with pytest.raises((EOFError, OSError)):
        while True:
            await connection.receive()
    connection.abort()


async def test_who_does_not_prove_the_password_gets_nothing(host: Host, folder: Path) -> None:
    await host.start()
    connection = await connected(folder, greet=False)
    await connection.receive()
    connection.send(Kind.HELLO, 0, encode_words(proof="00" * 32, nonce="n"))
    connection.send(Kind.LIST, 1, encode_question(Question(RANGE)))
    kinds = []
    with pytest.raises((EOFError, OSError)):
        while True:
            kinds.append((await connection.receive())[0])
    assert kinds == [Kind.FAILED]
    connection.abort()


async def test_a_borrower_that_does_not_read_is_left_and_holds_up_nobody(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lender, "BEAT", 0.02)
    workers = [await host.start() for _ in range(2)]
    slow = Place(RegistryAddress.parse(URL), folder).connect()
    slow.setblocking(False)
    loop = asyncio.get_running_loop()

    async def read() -> bytes:
        length = struct.unpack(">I", (await loop.sock_recv(slow, 9))[:4])[0]
        return await loop.sock_recv(slow, length)

    place = Place(RegistryAddress.parse(URL), folder)
    proof = place.proof(decode_words(await read(), nonce=str)["nonce"], "borrower")
    hello = encode_words(proof=proof, nonce="n")
    await loop.sock_sendall(slow, head(Kind.HELLO, 0, len(hello)) + hello)
    await read()
    question = encode_question(Question(RANGE, host.registry._store.revision))
    await loop.sock_sendall(slow, head(Kind.WATCH, 1, len(question)) + question)
    running: Any = workers[0].shared._link
    await eventually_async(lambda: running._lender.guests == 2)
    for number in range(400):
        await host.registry.change(lambda store: store.put(f"{RANGE}big", b"x" * 4000))
        if number % 50 == 0:
            await asyncio.sleep(0)
    await eventually_async(lambda: running._lender.guests == 1, what="it is left")
    slow.close()
    await host.all_know(await host.add("second"))
    assert workers[1].borrows


# ---- ends


async def test_a_registry_that_is_closed_at_once_leaves_nothing(folder: Path) -> None:
    async with a_host(folder) as host:
        own: Any = host.registry
        shared = SharedRegistry(own, RegistryAddress.parse(URL), rng=Random(1), folder=folder, settings=QUICK)
        await shared.aclose()
        assert not folder.exists()
        asking = asyncio.ensure_future(shared.list(RANGE))
        assert (await asking).entries, "who asks all the same asks the registry itself"


def test_a_socket_is_what_it_says_on_linux() -> None:
    assert hasattr(socket, "SO_PEERCRED"), "else only the folder keeps others out"
