"""The engines, as the tests choose them and tell them apart."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest

from discoclient import Instance
from discoclient.transport.native_async import AsyncNativeCarrier
from discoclient.transport.native_sync import NativeCarrier
from tests.client.shells import SHELLS, Shell

__all__ = ["TLS", "carried_by", "engine_for", "everywhere", "tracer", "ways"]

TLS = ssl.create_default_context()  # one for all: it is dear

PAIRS = [
    (shell, engine)
    for shell in SHELLS
    for engine in ("native", "httpcore", "lent")
    if (shell.name, engine) != ("trio", "native")
]

everywhere = pytest.mark.parametrize(
    ("shell", "engine"), PAIRS, ids=[f"{shell.name}-{engine}" for shell, engine in PAIRS]
)
"""Each shell over each engine that it has."""

ways = pytest.mark.parametrize(
    "shell", [shell for shell in SHELLS if shell.name != "trio"], ids=lambda it: it.name
)
"""The shells that the native engine has."""


def engine_for(shell: Shell, engine: str, **options: Any) -> Any:
    """What to say as ``engine=``; *lent*: httpx's own transport, made with *options*."""
    if engine != "lent":
        return engine
    kind = httpx.HTTPTransport if shell.is_sync else httpx.AsyncHTTPTransport
    options.setdefault("verify", TLS)

    def lend(instance: Instance) -> Any:
        return kind(**options)

    return lend


def carried_by(response: httpx.Response) -> str:
    """Which engine has brought *response*."""
    carrier = response.extensions["network_stream"]
    return "native" if isinstance(carrier, NativeCarrier | AsyncNativeCarrier) else "httpcore"


def tracer(shell: Shell, seen: list[str]) -> Any:
    """For the extension ``trace``: the names of the events go to *seen*."""

    def note(name: str, info: Any) -> None:
        seen.append(name)

    async def anote(name: str, info: Any) -> None:
        seen.append(name)

    return note if shell.is_sync else anote
