"""The borrower: its listings, probes and watches come from the lender, over one connection."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
from collections.abc import AsyncIterator
from itertools import count
from typing import Self

from ...model.errors import RegistryError, RegistryUnavailable
from ..protocol import Batch, Listing, Probe
from .connection import Connection
from .frames import (
    VERSION,
    Garbled,
    Kind,
    Question,
    decode_batch,
    decode_error,
    decode_listing,
    decode_probe,
    decode_words,
    encode_question,
    encode_words,
)
from .place import Place, Unfit, peer_of

__all__ = ["Borrower", "LenderGone", "LenderHangs"]

logger = logging.getLogger("discoclient.registry")

HELLO_TIMEOUT = 2.0
"""Seconds that a lender may take to say that it is one."""
SILENCE = 3.0
"""Seconds without a sign of life, which comes every second: then the lender hangs, and is left."""
ANSWER_TIMEOUT = 3.0
"""Seconds that a list or a probe may take the lender, before we ask the registry ourselves."""


class LenderGone(RegistryUnavailable):
    """The connection ended: as a rule because the process did."""


class LenderHangs(RegistryUnavailable):
    """It is there, and says nothing."""


class Borrower:
    """A `Source` that is another process. Made by `open`. When `lost` is done, nothing comes any more."""

    def __init__(self, connection: Connection, place: Place) -> None:
        self._connection = connection
        self._place = place
        self._ids = count(1)
        self._questions: dict[int, tuple[Kind, str, asyncio.Future[Listing | Probe]]] = {}
        self._watches: dict[int, tuple[str, asyncio.Queue[Batch | RegistryError]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self.pid = 0
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Why."""

    @classmethod
    async def open(cls, place: Place) -> Self:
        """Raises `Unfit`, `Garbled`, `RegistryError` if it refuses us, `LenderHangs`, or `OSError` if there is none."""
        connection = await Connection.over(place.connect())
        found = cls(connection, place)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await found._introduce()
        except TimeoutError:
            connection.abort()
            raise LenderHangs("the process that watches for this host does not answer") from None
        except EOFError:
            connection.abort()
            raise LenderGone("the process that watches for this host left") from None
        except BaseException:
            connection.abort()
            raise
        found._reading = asyncio.ensure_future(found._read())
        return found

    async def list(self, range: str) -> Listing:
        answer = await self._ask(Kind.LIST, Question(range))
        assert isinstance(answer, Listing)
        return answer

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        answer = await self._ask(Kind.PROBE, Question(range, after, is_past))
        assert isinstance(answer, Probe)
        return answer

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        if self.lost.done():
            raise self._why()
        id, arrived = next(self._ids), asyncio.Queue[Batch | RegistryError]()
        self._watches[id] = range, arrived
        self._connection.send(Kind.WATCH, id, encode_question(Question(range, after)))
        is_open = False
        try:
            while True:
                async with asyncio.timeout(None if is_open else ANSWER_TIMEOUT):
                    found = await arrived.get()
                if isinstance(found, RegistryError):
                    raise found
                is_open = True
                yield found
        except TimeoutError:
            raise RegistryUnavailable("the shared watch did not open in time") from None
        finally:
            del self._watches[id]
            self._connection.send(Kind.LEAVE, id, b"")

    def doubt(self, range: str) -> None:
        for id, (watched, _) in self._watches.items():
            if watched == range:
                self._connection.send(Kind.DOUBT, id, b"")

    def end_watches(self, error: RegistryError) -> None:
        """Whoever watches is told *error*."""
        for _, arrived in self._watches.values():
            arrived.put_nowait(error)

    def close(self) -> None:
        self._lose(LenderGone("the registry was closed"))
        if self._reading is not None:
            self._reading.cancel()

    async def _introduce(self) -> None:
        peer = peer_of(self._connection.socket)
        if peer is not None and peer[1] != os.geteuid():
            raise Unfit(f"user {peer[1]} listens on {self._place.socket_path}")
        kind, _, payload = await self._connection.receive()
        words = decode_words(payload, v=int, pid=int, nonce=str)
        if kind is not Kind.GREETING or words["v"] != VERSION:
            raise Garbled("that is no greeting")
        proof, nonce = self._place.proof, secrets.token_hex(16)
        self._connection.send(
            Kind.HELLO, 0, encode_words(proof=proof(words["nonce"], "borrower"), nonce=nonce)
        )
        self.pid = peer[0] if peer is not None else words["pid"]
        kind, _, payload = await self._connection.receive()
        if kind is Kind.FAILED:
            raise decode_error(payload)
        words = decode_words(payload, proof=str)
        if kind is not Kind.WELCOME or not hmac.compare_digest(
            words["proof"].encode(), proof(nonce, "lender").encode()
        ):
            raise Garbled("that is no welcome")

    async def _ask(self, kind: Kind, question: Question) -> Listing | Probe:
        if self.lost.done():
            raise self._why()
        id = next(self._ids)
        answer: asyncio.Future[Listing | Probe] = asyncio.get_running_loop().create_future()
        self._questions[id] = kind, question.range, answer
        self._connection.send(kind, id, encode_question(question))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise RegistryUnavailable("the process that watches for this host took too long") from None
        finally:
            del self._questions[id]

    async def _read(self) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    frame = await self._connection.receive()
                self._take(*frame)
        except TimeoutError:
            self._lose(LenderHangs(f"nothing was heard of process {self.pid}, which watches for this host"))
        except (OSError, EOFError):
            self._lose(LenderGone(f"process {self.pid}, which watched for this host, left"))
        except Exception as error:  # garbled, or a bug: in any case we go on without
            self._lose(error)

    def _take(self, kind: Kind, id: int, payload: bytes) -> None:
        if id in self._watches:
            range, arrived = self._watches[id]
            match kind:
                case Kind.BATCH:
                    arrived.put_nowait(decode_batch(payload, range))
                    return
                case Kind.FAILED:
                    arrived.put_nowait(decode_error(payload))
                    return
        elif id in self._questions:
            asked, range, answer = self._questions[id]
            if kind is Kind.FAILED:
                _settle(answer, decode_error(payload))
                return
            if kind is Kind.LISTING and asked is Kind.LIST:
                _settle(answer, decode_listing(payload, range))
                return
            if kind is Kind.PROBED and asked is Kind.PROBE:
                _settle(answer, decode_probe(payload, range))
                return
        elif kind in (Kind.BEAT, Kind.BATCH, Kind.LISTING, Kind.PROBED, Kind.FAILED):
            return  # a sign of life, or for who does not wait for it any more
        raise Garbled(f"{kind.name} from a lender")

    def _lose(self, why: Exception) -> None:
        if self.lost.done():
            return
        self.lost.set_result(why)
        self._connection.abort()
        error = self._why()
        for _, _, answer in self._questions.values():
            _settle(answer, error)
        self.end_watches(error)

    def _why(self) -> RegistryError:
        why = self.lost.result()
        return why if isinstance(why, RegistryError) else LenderGone(f"the shared watch is lost: {why}")


def _settle(answer: asyncio.Future[Listing | Probe], found: Listing | Probe | RegistryError) -> None:
    if answer.done():
        return
    if isinstance(found, RegistryError):
        answer.set_exception(found)
    else:
        answer.set_result(found)
