"""Whatever happens in whatever order: nothing is raised, nothing is left over, and every answer belongs to its request."""

from __future__ import annotations

from random import Random
from time import monotonic
from typing import Any

import pytest

from disco_sidecar.proxy.gate import Policy
from discoclient.model.policy import RetryPolicy

from .stage import Attempt, Stage, Transport

BIG = b"x" * 80_000
BODIES = [b"", b"hi", b"x" * 3000, BIG]


class Walk:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.rng = rng = Random(seed)
        retry = RetryPolicy(budget=1.0, backoff_first=0.001)
        policy = Policy(replay=rng.choice([0, 65536, 200_000]))
        self.stage = Stage(monkeypatch, instances=rng.choice([1, 2, 3]), policy=policy, retry=retry)
        self.clients: list[tuple[Any, Transport]] = []
        self.instances: list[Transport] = []
        self.unsent: dict[Transport, bytes] = {}
        self.met: set[int] = set()
        self.now = monotonic()
        self.number = 0

    def transport(self) -> Transport:
        return Transport(room=self.rng.choice([0, 100, 50_000, 1 << 40]))

    def request(self) -> bytes:
        rng = self.rng
        self.number += 1
        method, version = (
            rng.choice([b"GET", b"HEAD", b"PUT", b"POST"]),
            rng.choice([b"1.1", b"1.1", b"1.1", b"1.0"]),
        )
        lines = [b"%b /web/%d HTTP/%b" % (method, self.number, version), b"Host: localhost"]
        connection = rng.choice([b"", b"", b"keep-alive", b"close"])
        body = b""
        if method in (b"PUT", b"POST"):
            body = rng.choice(BODIES)
            if version == b"1.1" and rng.random() < 0.5:
                lines.append(b"Transfer-Encoding: chunked")
                body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
            else:
                lines.append(b"Content-Length: %d" % len(body))
            if rng.random() < 0.2:
                lines.append(b"Expect: 100-continue")
        elif rng.random() < 0.15:
            connection, lines = b"Upgrade", [*lines, b"Upgrade: x"]
        if rng.random() < 0.1:
            lines.append(b"X-Disco-Deadline: 5000")
        if connection:
            lines.append(b"Connection: " + connection)
        if rng.random() < 0.03:
            lines.append(b"Bad : line")
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def answer(self) -> bytes:
        rng = self.rng
        status = rng.choice(
            [
                b"200 OK",
                b"200 OK",
                b"204 No",
                b"304 No",
                b"404 No",
                b"421 No",
                b"503 Busy",
                b"999 Odd",
                b"101 Sw",
            ]
        )
        lines, body = [b"HTTP/1.%d %b" % (rng.random() < 0.9, status)], rng.choice(BODIES)
        if status[:3] == b"101":
            return b"\r\n".join([*lines, b"Connection: upgrade", b"Upgrade: x", b"", b"first"])
        framing = rng.choice(["length", "length", "chunked", "close"])
        if framing == "length":
            lines.append(b"Content-Length: %d" % len(body))
        elif framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        if rng.random() < 0.1:
            lines.append(b"Retry-After: 0")
        if rng.random() < 0.1:
            lines.append(b"Connection: close")
        early = b"HTTP/1.1 100 Continue\r\n\r\n" if rng.random() < 0.1 else b""
        junk = rng.choice([b"junk", b"HTTP/1.1 200 "]) if rng.random() < 0.03 else b""
        return early + b"\r\n".join(lines) + b"\r\n\r\n" + body + junk

    def say(self, end: Transport, data: bytes) -> None:
        """A part of it now, and the rest another time."""
        data = self.unsent.pop(end, b"") + data
        if end.is_paused or end.is_closing() or end.is_over or end.has_ended:
            return
        cut = self.rng.choice([len(data), len(data), self.rng.randrange(len(data) + 1)])
        if data[cut:]:
            self.unsent[end] = data[cut:]
        if data[:cut]:
            end.say(data[:cut])

    def step(self) -> None:
        rng, stage = self.rng, self.stage
        open_clients = [end for _, end in self.clients if not end.is_over]
        open_instances = [end for end in self.instances if not end.is_over]
        what = rng.random()
        if what < 0.08 or not open_clients:
            self.clients.append(stage.client(transport=self.transport()))
        elif what < 0.35:
            end = rng.choice(open_clients)
            self.say(end, b"" if end in self.unsent and rng.random() < 0.8 else self.request())
        elif what < 0.55:
            stage.loop.run()
            waiting: list[Attempt] = [
                each
                for each in stage.attempts
                if each.task and not each.task.is_done and id(each) not in self.met
            ]
            if waiting:
                attempt = rng.choice(waiting)
                self.met.add(id(attempt))
                if rng.random() < 0.2:
                    attempt.fail()
                else:
                    end = attempt.meet(self.transport())
                    self.instances.append(end)
                    if rng.random() < 0.05:
                        end.lose(ConnectionResetError("reset"))
                    attempt.wake()
        elif what < 0.78 and open_instances:
            end = rng.choice(open_instances)
            self.say(end, b"" if end in self.unsent and rng.random() < 0.8 else self.answer())
        elif what < 0.88:
            rng.choice(open_clients + open_instances).drain()
        elif what < 0.93:
            end = rng.choice(open_clients + open_instances)
            if rng.random() < 0.5 and not end.is_paused and not end.is_closing() and not end.has_ended:
                end.end()
            elif rng.random() < 0.5:
                end.lose(rng.choice([None, ConnectionResetError("reset")]))
        elif what < 0.97:
            for each in [*(end for _, end in self.clients), *self.instances]:
                each.settle()
            stage.loop.run()
        elif what < 0.98:
            stage.loop.ring()
        else:
            self.now += rng.choice([0.25, 3.0, 31.0, 61.0])
            for client in list(stage.gate.clients):
                client.sweep(self.now)
        self.check()

    def check(self) -> None:
        ours, theirs = self.stage.in_flight
        assert ours >= 0
        assert theirs >= 0
        for pool in self.stage.pools._pools.values():
            for connection in pool._idle:
                assert connection.exchange is None
                assert not connection.is_full
                assert not connection.transport.is_paused  # type: ignore[attr-defined]

    def finish(self) -> None:
        for _, end in self.clients:
            if not end.is_over:
                end.lose()
        for end in self.instances:
            if not end.is_over:
                end.settle()
        self.stage.loop.run()
        self.stage.loop.ring()
        self.stage.loop.run()
        assert self.stage.in_flight == (0, 0)
        assert self.stage.counts.tunnels == 0
        assert not self.stage.gate.clients
        assert not self.stage.gate.tunnels
        assert all(task.is_done for task in self.stage.loop.tasks)


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_left_over(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    walk = Walk(monkeypatch, seed)
    for _ in range(200):
        walk.step()
    walk.finish()
