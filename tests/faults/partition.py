"""A cluster whose members can be cut off from each other while their clients stay attached, without root.

Members reach each other through proxies. etcd says in every request of Raft which member it is from.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from discoclient.dev import EtcdCluster, EtcdMember
from discoclient.dev.layout import Layout
from tests.conftest import ELECTION, HEARTBEAT
from tests.support.proxy import FaultProxy

__all__ = ["Partition", "partitionable"]

_ADVERTISING = ("--initial-advertise-peer-urls=", "--initial-cluster=")
_SENDER = re.compile(rb"^X-Server-From: ([0-9a-f]+)\r$", re.MULTILINE | re.IGNORECASE)


class _PeerProxy(FaultProxy):
    """In front of one member's peer port. Refuses whom it is told to refuse."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self._refused: frozenset[int] = frozenset()
        self._senders: dict[Any, int | None] = {}

    def refuse(self, *ids: int) -> None:
        """Reset the connections of these members, and refuse new ones. Nobody's: well again."""
        self._run(self._do_refuse(frozenset(ids)))

    async def _do_refuse(self, ids: frozenset[int]) -> None:
        self._refused = ids
        await self._end(task for task, sender in self._senders.items() if self._is_refused(sender))

    def _is_refused(self, sender: int | None) -> bool:
        # A connection that began with a health probe does not say whose it is, and carries Raft's messages later.
        return sender in self._refused or (sender is None and bool(self._refused))

    async def _do_reset(self) -> None:
        await self._end(self._senders)

    async def _end(self, tasks: Any) -> None:
        tasks = list(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._senders[task] = None
        try:
            if self._server is None:
                return
            head = await reader.readuntil(b"\r\n\r\n")
            found = _SENDER.search(head)
            self._senders[task] = sender = int(found[1], 16) if found else None
            if self._is_refused(sender):
                return
            reader._buffer[:0] = head  # type: ignore[attr-defined]  # as if it had not been read
            await super()._serve(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            return
        finally:
            writer.transport.abort()
            del self._senders[task]


class Partition:
    """The buttons of a `partitionable` cluster."""

    def __init__(self, cluster: EtcdCluster, proxies: dict[int, _PeerProxy]) -> None:
        self.cluster = cluster
        self._proxies = proxies

    def isolate(self, member: EtcdMember) -> None:
        """Cut *member* off from all other members, in both directions. Its clients notice nothing of it."""
        ids = {other: other.status(timeout=5.0).member_id for other in self.cluster.members}
        for other, id in ids.items():
            refused = (
                [ids[member]] if other is not member else [found for found in ids.values() if found != id]
            )
            self._proxies[other.peer_port].refuse(*refused)

    def heal(self) -> None:
        for proxy in self._proxies.values():
            proxy.refuse()


@contextmanager
def partitionable(*, heartbeat: float = HEARTBEAT, election: float = ELECTION) -> Iterator[Partition]:
    """A fresh cluster of three behind such proxies."""
    with ExitStack() as stack:
        cluster = EtcdCluster(nodes=3, heartbeat=heartbeat, election=election)
        proxies: dict[int, _PeerProxy] = {}

        def proxied(layout: Layout, folder: Path, index: int, *others: Any) -> tuple[str, ...]:
            command = plain(layout, folder, index, *others)
            for port in layout.peer_ports:
                if port not in proxies:
                    proxies[port] = stack.enter_context(_PeerProxy(port))
                ours = f"127.0.0.1:{proxies[port].port}"
                command = tuple(
                    word.replace(f"127.0.0.1:{port}", ours) if word.startswith(_ADVERTISING) else word
                    for word in command
                )
            return command

        plain = Layout.command
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Layout, "command", proxied)
            stack.enter_context(cluster)
        yield Partition(cluster, proxies)
