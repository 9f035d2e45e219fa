"""Who is measured beside whom, what each of them needs, and what is said of those that are not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

from .figures import Role
from .trouble_proxies import find

__all__ = ["ASYNC_SIDES", "OPEN_SIDES", "SYNC_SIDES", "Kind", "Side", "absent", "is_installed", "present"]

Kind: TypeAlias = Literal["asyncio", "uvloop", "threads"]


class Side(NamedTuple):
    name: str
    role: Role
    kind: Kind
    client: str
    """In `clients_calls`."""
    where: str
    """See `Scene.target`."""
    needs: tuple[str, ...] = ()
    """Distributions, by the name that is imported."""

    @property
    def needs_nginx(self) -> bool:
        return self.where == "nginx"


_ASYNC: dict[str, Side] = {
    "disco": Side("AsyncDiscoClient", "ours", "asyncio", "disco", "memory"),
    "disco_paths": Side("AsyncDiscoClient, a new path each time", "ours", "asyncio", "disco_paths", "memory"),
    "disco_etcd": Side("AsyncDiscoClient, etcd", "ours", "asyncio", "disco", "etcd"),
    "disco_64": Side("AsyncDiscoClient, 64 instances", "ours", "asyncio", "disco", "many"),
    "httpx_nginx": Side("httpx through nginx", "reference", "asyncio", "httpx", "nginx"),
    "httpx": Side("httpx, direct", "reference", "asyncio", "httpx", "direct"),
    "httpx2": Side("httpx2, direct", "reference", "asyncio", "httpx2", "direct", ("httpx2",)),
    "httpx_aiohttp": Side(
        "httpx over aiohttp, direct", "reference", "asyncio", "httpx_aiohttp", "direct", ("httpx_aiohttp",)
    ),
    "aiohttp": Side("aiohttp, direct", "reference", "asyncio", "aiohttp", "direct", ("aiohttp",)),
    "pyreqwest": Side("pyreqwest, direct", "reference", "asyncio", "pyreqwest", "direct", ("pyreqwest",)),
    "floor": Side("httpx over nothing", "reference", "asyncio", "floor", "direct"),
}
_ON_UVLOOP = ("disco", "httpx_nginx", "httpx2", "httpx_aiohttp", "aiohttp", "pyreqwest")


def _on_uvloop(side: Side) -> Side:
    return side._replace(name=f"{side.name}, uvloop", kind="uvloop", needs=(*side.needs, "uvloop"))


ASYNC_SIDES: Mapping[str, Side] = _ASYNC | {f"{key}_uvloop": _on_uvloop(_ASYNC[key]) for key in _ON_UVLOOP}
SYNC_SIDES: Mapping[str, Side] = {
    "disco": Side("DiscoClient", "ours", "threads", "disco", "memory"),
    "disco_paths": Side("DiscoClient, a new path each time", "ours", "threads", "disco_paths", "memory"),
    "disco_64": Side("DiscoClient, 64 instances", "ours", "threads", "disco", "many"),
    "httpx_nginx": Side("httpx through nginx", "reference", "threads", "httpx", "nginx"),
    "httpx": Side("httpx, direct", "reference", "threads", "httpx", "direct"),
    "httpx2": Side("httpx2, direct", "reference", "threads", "httpx2", "direct", ("httpx2",)),
    "requests": Side("requests, direct", "reference", "threads", "requests", "direct", ("requests",)),
    "http_client": Side("http.client, direct", "reference", "threads", "http_client", "direct"),
    "pyreqwest": Side("pyreqwest, direct", "reference", "threads", "pyreqwest", "direct", ("pyreqwest",)),
    "floor": Side("httpx over nothing", "reference", "threads", "floor", "direct"),
}
OPEN_SIDES = ("disco", "httpx_nginx", "httpx", "httpx2", "aiohttp")
"""Of `ASYNC_SIDES`: those whose tail is looked at on a schedule."""


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def present(sides: Mapping[str, Side]) -> dict[str, Side]:
    """Those that can be measured here."""
    return {key: side for key, side in sides.items() if not any(_missing(side))}


def absent(sides: Iterable[Side]) -> list[str]:
    """A sentence for each that is left out, with the reason."""
    return [
        f"{side.name}: left out, since {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed here."
        for side in sides
        if (missing := list(_missing(side)))
    ]


def _missing(side: Side) -> Iterator[str]:
    if side.needs_nginx and not find("nginx"):
        yield "nginx"
    yield from (module for module in side.needs if not is_installed(module))
