"""The lender: it answers what other processes of its user on its host ask of the registry, from one watch for all."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import socket
from collections.abc import Callable
from functools import partial

from ...model.errors import RegistryError, RegistryUnavailable
from .connection import Connection
from .frames import (
    MAX_FRAME,
    VERSION,
    Garbled,
    Kind,
    Question,
    decode_question,
    decode_words,
    encode_error,
    encode_listing,
    encode_probe,
    encode_words,
)
from .inheritance import disown
from .place import Claim, Place, peer_of
from .source import Wellspring
from .tap import Parcel

__all__ = ["Lender"]

logger = logging.getLogger("discoclient.registry")

BEAT = 1.0
"""Seconds between two signs of life."""
HELLO_TIMEOUT = 2.0
"""Seconds that who connects may take to say who it is."""
STUCK = 3
"""So many beats in which a borrower reads nothing, and it is left to itself."""
MAX_QUESTIONS = 1000
"""Questions of one borrower under way, and watches of one borrower, at most."""


class Lender:
    """Serves on *place*'s socket for as long as the process lives, or until `close`."""

    def __init__(
        self, wellspring: Wellspring, place: Place, claim: Claim, is_shared: Callable[[str], bool]
    ) -> None:
        self.wellspring = wellspring
        self.is_shared = is_shared
        self.place = place
        self._claim = claim
        self._guests: set[_Guest] = set()
        self._server: asyncio.Server | None = None
        self._beating: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def guests(self) -> int:
        """How many processes borrow."""
        return sum(guest.is_welcome for guest in self._guests)

    async def start(self) -> None:
        self._socket = self.place.listen()
        self._server = await asyncio.start_unix_server(self._serve, sock=self._socket)
        self._beating = asyncio.ensure_future(self._beat())

    async def close(self) -> None:
        """Let all borrowers go, and leave no file behind."""
        self._claim.clear()  # before they notice: one of them is to take the place
        if self._beating is not None:
            self._beating.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            disown(self._socket.fileno())
            # asyncio loses a connection whose server is closed between the accepting and the making of its transport.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if self._server is None:
                self._socket.close()
        if self._server is not None:
            self._server.close()
        for guest in tuple(self._guests):
            guest.connection.abort()
        self.wellspring.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = _Guest(self, Connection(reader, writer))
        self._guests.add(guest)
        try:
            await guest.run()
        except asyncio.CancelledError:
            pass  # the process ends
        finally:
            self._guests.discard(guest)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            for guest in tuple(self._guests):
                guest.beat()


class _Watch:
    """A subscriber at the other end of a connection."""

    def __init__(self, connection: Connection, id: int, range: str) -> None:
        self.range = range
        self._connection = connection
        self._id = id

    def deliver(self, parcel: Parcel) -> None:
        self._connection.send(Kind.BATCH, self._id, parcel.payload)

    def fail(self, error: RegistryError) -> None:
        self._connection.send(Kind.FAILED, self._id, encode_error(error))


class _Guest:
    """One borrower."""

    def __init__(self, lender: Lender, connection: Connection) -> None:
        self._lender = lender
        self.connection = connection
        self.is_welcome = False
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._watches: dict[int, _Watch] = {}
        self._stuck = 0
        self._waiting = 0

    async def run(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await self._introduce()
            while self.is_welcome:
                self._take(*await self.connection.receive())
        except Garbled as error:
            logger.warning("who borrows our watch talks nonsense (%s) and is left to itself", error)
        except (OSError, EOFError, TimeoutError):
            pass  # gone, or no borrower at all
        finally:
            self.is_welcome = False
            for task in self._asking.values():
                task.cancel()
            for watch in self._watches.values():
                self._lender.wellspring.leave(watch.range, watch)
            self.connection.abort()

    def beat(self) -> None:
        """Tell that we live. Who does not read what is there is not waited for: it has a registry of its own."""
        if not self.is_welcome:
            return
        waiting = self.connection.unsent
        self._stuck = self._stuck + 1 if waiting and waiting >= self._waiting > 0 else 0
        self._waiting = waiting
        if self._stuck >= STUCK:
            logger.info(
                "a process that borrows our watch does not read what it is told, and is left to itself"
            )
            self.connection.abort()
        else:
            self.connection.send(Kind.BEAT, 0, b"")

    async def _introduce(self) -> None:
        peer = peer_of(self.connection.socket)
        if peer is not None and peer[1] != os.geteuid():
            logger.warning("a process of user %d wanted to borrow our watch, and may not", peer[1])
            return
        proof, nonce = self._lender.place.proof, secrets.token_hex(16)
        self.connection.send(Kind.GREETING, 0, encode_words(v=VERSION, pid=os.getpid(), nonce=nonce))
        kind, _, payload = await self.connection.receive()
        words = decode_words(payload, proof=str, nonce=str)
        if kind is not Kind.HELLO:
            raise Garbled(f"{kind.name} in place of a hello")
        if not hmac.compare_digest(words["proof"].encode(), proof(nonce, "borrower").encode()):
            refusal = RegistryUnavailable("it is asked with another password")
            self.connection.send(Kind.FAILED, 0, encode_error(refusal))
            return
        self.connection.send(Kind.WELCOME, 0, encode_words(proof=proof(words["nonce"], "lender")))
        self.is_welcome = True

    def _take(self, kind: Kind, id: int, payload: bytes) -> None:
        match kind:
            case Kind.LIST | Kind.PROBE:
                self._ask(kind, id, self._question(payload))
            case Kind.WATCH:
                question = self._question(payload)
                if id in self._watches or len(self._watches) >= MAX_QUESTIONS:
                    raise Garbled("a watch too many")
                watch = self._watches[id] = _Watch(self.connection, id, question.range)
                self._lender.wellspring.join(question.range, watch, question.after)
            case Kind.LEAVE if id in self._watches:
                watch = self._watches.pop(id)
                self._lender.wellspring.leave(watch.range, watch)
            case Kind.DOUBT if id in self._watches:
                watch = self._watches[id]
                self._lender.wellspring.doubted_by(watch.range, watch)
            case Kind.LEAVE | Kind.DOUBT:
                pass
            case _:
                raise Garbled(f"{kind.name} from a borrower")

    def _question(self, payload: bytes) -> Question:
        question = decode_question(payload)
        if not self._lender.is_shared(question.range):
            raise Garbled("a range that is not shared")
        return question

    def _ask(self, kind: Kind, id: int, question: Question) -> None:
        if id in self._asking or len(self._asking) >= MAX_QUESTIONS:
            raise Garbled("a question too many")
        task = asyncio.ensure_future(self._answer(kind, id, question))
        self._asking[id] = task
        task.add_done_callback(partial(self._answered, id))

    def _answered(self, id: int, task: asyncio.Task[None]) -> None:
        self._asking.pop(id, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a question of who borrows our watch failed", exc_info=task.exception())
            self.connection.abort()

    async def _answer(self, kind: Kind, id: int, question: Question) -> None:
        wellspring = self._lender.wellspring
        try:
            if kind is Kind.LIST:
                answer, payload = Kind.LISTING, encode_listing(await wellspring.list(question.range))
            else:
                probe = await wellspring.probe(question.range, after=question.after, is_past=question.is_past)
                answer, payload = Kind.PROBED, encode_probe(probe)
            if len(payload) > MAX_FRAME:
                raise RegistryUnavailable("the service is too large to be shared")
        except RegistryError as error:
            answer, payload = Kind.FAILED, encode_error(error)
        self.connection.send(answer, id, payload)
