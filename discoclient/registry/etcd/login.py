"""Our name at the registry: one token for all members and everybody who asks, and a memory for refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random

from ...model.errors import RegistryDenied, RegistryError
from ...model.schedule import jittered
from ..address import RegistryAddress

__all__ = ["Login"]

REFUSED_FIRST = 1.0
"""Seconds, a quarter more or less, for which a refused login is not tried again; twice as long after each further one."""
REFUSED_CAP = 20.0
"""Seconds that this grows to. A password that is put right *at the server* is taken up within 25 s."""


class Login:
    """Logs in when a token is needed and there is none, once for everybody who waits.

    A password costs the member a bcrypt, 0.1 s of a core. So one that it refused is not shown to it again for a while,
    however many ask; until then all get the same refusal. The wait is forgotten with the first login that succeeds.
    """

    def __init__(self, address: RegistryAddress, *, rng: Random) -> None:
        self._credentials = (address.user or "", address.password or "") if address.user else None
        self._rng = rng
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._refusal: RegistryDenied | None = None
        self._refused_until = 0.0
        self._waits = self._new_waits()

    async def metadata(self, authenticate: Callable[[str, str], Awaitable[str]]) -> dict[str, str]:
        """What a call has to carry: nothing, or the token. Raises `RegistryDenied`, or what *authenticate* raises."""
        if self._credentials is None:
            return {}
        async with self._lock:
            if self._token is None:
                self._check_refused()
                try:
                    self._token = await authenticate(*self._credentials)
                except RegistryDenied as error:
                    self._refusal = error
                    wait = jittered(self._rng, next(self._waits), 0.25)
                    self._refused_until = asyncio.get_running_loop().time() + wait
                    raise
                except RegistryError as error:
                    if "authentication is not enabled" in str(error):
                        return {}  # as etcd's own client: a password where none is asked for is no mistake
                    raise
                self._refusal, self._waits = None, self._new_waits()
            return {"token": self._token}

    def forget(self, metadata: dict[str, str]) -> None:
        """The token in *metadata* is not taken any more. Another one that we have by now is kept."""
        if metadata.get("token") == self._token:
            self._token = None

    def _check_refused(self) -> None:
        if self._refusal is not None and asyncio.get_running_loop().time() < self._refused_until:
            raise RegistryDenied(str(self._refusal)) from self._refusal

    def _new_waits(self) -> Iterator[float]:
        wait = REFUSED_FIRST
        while True:
            yield wait
            wait = min(REFUSED_CAP, wait * 2)
