"""Bodies of 10 MB by one client: ``python -m benchmarks.clients_bulk_child KIND CLIENT DIRECTION SHAPE CORE TARGET``.

KIND is ``threads`` or ``asyncio``, CLIENT ``disco`` or ``httpx``, DIRECTION ``download`` or ``upload``, SHAPE ``streamed``
(piece by piece, as a program does that must not grow) or ``whole``. It says when it is ready, transfers as often as its one
line of input says, and tells how fast that was and by how much its memory had grown at most.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import httpx

from .clients_calls import SERVICE, Target, known
from .usage import on_core, read_status

__all__ = ["SIZE", "main", "pieces"]

SIZE = 10_000_000
_PIECE = 64 * 1024
_SMALL = "/small"
_TIMEOUT = 30.0
_HEADERS = {"Content-Length": str(SIZE)}


def pieces() -> Iterator[bytes]:
    """The body of an upload."""
    piece, left = b"x" * _PIECE, SIZE
    while left >= _PIECE:
        yield piece
        left -= _PIECE
    yield piece[:left]


async def _async_pieces() -> AsyncIterator[bytes]:
    for piece in pieces():
        yield piece


def _check_upload(response: httpx.Response) -> None:
    received = int(response.headers.get("x-received", "0"))  # with the head, so a little more than the body
    if response.status_code != 200 or received < SIZE:
        raise RuntimeError(f"status {response.status_code}, and {received:,} bytes arrived")


def _check_download(status: int, size: int) -> None:
    if status != 200 or size != SIZE:
        raise RuntimeError(f"status {status}, and {size:,} bytes came")


def _transfer(client: httpx.Client, path: str, direction: str, body: bytes | None) -> None:
    """*body*: of an upload that is sent whole; ``b""`` for a download that is taken whole, ``None`` for what is streamed."""
    if direction == "upload":
        if body is None:
            _check_upload(client.post(path, content=pieces(), headers=_HEADERS))
        else:
            _check_upload(client.post(path, content=body))
    elif body is not None:
        response = client.get(path)
        _check_download(response.status_code, len(response.content))
    else:
        with client.stream("GET", path) as response:
            _check_download(response.status_code, sum(map(len, response.iter_bytes())))


async def _async_transfer(client: httpx.AsyncClient, path: str, direction: str, body: bytes | None) -> None:
    if direction == "upload":
        if body is None:
            _check_upload(await client.post(path, content=_async_pieces(), headers=_HEADERS))
        else:
            _check_upload(await client.post(path, content=body))
    elif body is not None:
        response = await client.get(path)
        _check_download(response.status_code, len(response.content))
    else:
        size = 0
        async with client.stream("GET", path) as response:
            async for piece in response.aiter_bytes():
                size += len(piece)
        _check_download(response.status_code, size)


class _Watch:
    """Says what the transfers between its begin and its end took."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is what is there now
        self._resident, _ = _memory()
        self._cpu, self._began = process_time(), perf_counter()

    def tell(self, transfers: int) -> dict[str, Any]:
        wall, cpu = perf_counter() - self._began, process_time() - self._cpu
        _, most = _memory()
        return {
            "rate": transfers * SIZE / 1e6 / wall,
            "cpu": cpu / transfers * 1e3,
            "grown": max(0.0, most - self._resident),
        }


def _memory() -> tuple[float, float]:
    return read_status(Path("/proc/self/status").read_text())


def _times() -> int:
    print(json.dumps({"ready": True}), flush=True)
    return int(json.loads(sys.stdin.readline()))


def _run(name: str, target: Target, direction: str, body: bytes | None) -> dict[str, Any]:
    with ExitStack() as stack:
        client: httpx.Client
        if name == "disco":
            from discoclient import DiscoClient

            registry = stack.enter_context(known(target))
            client = stack.enter_context(DiscoClient(SERVICE, registry=registry, timeout=_TIMEOUT))
        else:
            client = stack.enter_context(httpx.Client(base_url=target.url, timeout=_TIMEOUT))
        client.get(_SMALL).raise_for_status()
        transfers = _times()
        watch = _Watch()
        for _ in range(transfers):
            _transfer(client, target.path, direction, body)
        return watch.tell(transfers)


async def _async_run(name: str, target: Target, direction: str, body: bytes | None) -> dict[str, Any]:
    with ExitStack() as stack:
        client: httpx.AsyncClient
        if name == "disco":
            from discoclient import AsyncDiscoClient

            registry = stack.enter_context(known(target))
            client = AsyncDiscoClient(SERVICE, registry=registry, timeout=_TIMEOUT)
        else:
            client = httpx.AsyncClient(base_url=target.url, timeout=_TIMEOUT)
        async with client:
            (await client.get(_SMALL)).raise_for_status()
            transfers = _times()
            watch = _Watch()
            for _ in range(transfers):
                await _async_transfer(client, target.path, direction, body)
            return watch.tell(transfers)


def main() -> None:
    kind, name, direction, shape, core, target = sys.argv[1:]
    logging.disable(logging.ERROR)
    there = json.loads(target)
    there["ports"] = tuple(there["ports"])
    whole = b"x" * SIZE if direction == "upload" else b""
    words = (name, Target(**there), direction, whole if shape == "whole" else None)
    with on_core(int(core)):
        told = _run(*words) if kind == "threads" else asyncio.run(_async_run(*words))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
