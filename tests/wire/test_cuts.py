"""Responses that are cut, reset or split at every byte offset."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from .comparing import differences, verdict
from .engines import IS_NATIVE, OURS, THEIRS, Side, Way
from .observing import Answer, Ask, Observed, observe
from .origin import origin
from .plays import Act, Play, bytewise, response, split_at, whole
from .stricter import allowed

RESPONSES = {
    "a length": response(b"twelve bytes", b"Server: raw", b"Set-Cookie: a=b"),
    "chunks": response(b"", b"Transfer-Encoding: chunked", length=False)
    + b"4\r\nabcd\r\nA;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
    "until the end": response(b"as long as it lasts", b"X: y", length=False),
    "after an interim one": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + response(b"body", status=b"404 No"),
    "204": b"HTTP/1.1 204 No Content\r\nServer: raw\r\n\r\n",
    "HTTP/1.0": response(b"old", version=b"HTTP/1.0"),
}


def everywhere(way: Way, plays: dict[str, Play], modes: list[bool]) -> list[tuple[Observed, Observed]]:
    """Each play on both sides, read whole or not as *modes* say in turn. One client a side: what a cut leaves must not hurt."""

    async def seen(side: Side) -> list[Observed]:
        async with side.client(way, server.port, timeout=5.0) as client:
            asks = [
                Ask(path=f"/{place}", is_whole=is_whole)
                for place, is_whole in zip(plays, itertools.cycle(modes))
            ]
            return [replace(await observe(side, way, server, what, client=client), heard=()) for what in asks]

    with origin(plays) as server:
        ours = way.run(lambda: seen(OURS))
        theirs = way.run(lambda: seen(THEIRS))
    return list(zip(ours, theirs, strict=True))


def assert_same(way: Way, name: str, place: object, ours: Observed, theirs: Observed) -> None:
    found = verdict(ours, theirs, allowed(name, way.name, is_native=IS_NATIVE))
    assert not found, f"{name}, at {place}:\n" + "\n".join(found)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in parts"])
@pytest.mark.parametrize("name", RESPONSES)
def test_cut_at_every_offset(way: Way, name: str, is_whole: bool) -> None:
    raw = RESPONSES[name]
    plays = {f"c{place}": whole(*_some(raw[:place]), Act.SHUT) for place in range(len(raw) + 1)}
    seen = everywhere(way, plays, [is_whole])
    for place, (ours, theirs) in enumerate(seen):
        assert_same(way, f"cut: {name}", place, ours, theirs)
        # never taken for the whole, if it says how long that is; and the whole is no error, which is the negative control
        if name in ("a length", "chunks", "after an interim one", "204", "HTTP/1.0"):
            assert bool(ours.answer.error) == (place < len(raw)), f"{name}, cut at {place} of {len(raw)}"


@pytest.mark.parametrize("name", ["a length", "chunks", "until the end"])
def test_reset_at_every_offset(way: Way, name: str) -> None:
    """How much is handed out before the reset is a race with the kernel; that it ends in an error is not."""
    raw = RESPONSES[name]
    plays = {f"r{place}": whole(*_some(raw[:place]), Act.RESET) for place in range(len(raw) + 1)}
    for place, (ours, theirs) in enumerate(everywhere(way, plays, [False, True])):
        assert_same(way, f"reset: {name}", place, _without_a_part(ours), _without_a_part(theirs))
        assert place == len(raw) or ours.answer.error, f"{name}, reset at {place} of {len(raw)}: {ours}"


@pytest.mark.parametrize("name", RESPONSES)
def test_split_at_every_offset(way: Way, name: str) -> None:
    """Two parts that are read one after the other, at every place, and every byte by itself."""
    raw = RESPONSES[name]
    end = [Act.SHUT] if name == "until the end" else []
    plays = {"straight": whole(raw, *end), "bytewise": whole(*bytewise(raw), *end)}
    plays |= {"again": whole(*bytewise(raw), *end)}
    plays |= {f"s{place}": whole(*split_at(raw, place), *end) for place in range(1, len(raw))}
    seen = everywhere(way, plays, [True, False])
    for place, (ours, theirs) in zip(plays, seen, strict=True):
        assert_same(way, f"split: {name}", place, ours, theirs)
        assert ours == seen[0][0], f"{name}, {place}: {differences(ours, seen[0][0])}"


def _some(raw: bytes) -> list[bytes]:
    return [raw] if raw else []


def _without_a_part(seen: Observed) -> Observed:
    if not seen.answer.error:
        return seen
    return replace(seen, answer=Answer(error=seen.answer.error, detail=seen.answer.detail))
