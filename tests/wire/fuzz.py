"""A hunt for differences, for as long as one likes: ``python -m tests.wire.fuzz --seconds 60``.

Starts from every response of the tests and of the corpus, bends and splices them at random, splits them at random, and gives
them to both sides in every way to read. What differs, and is not merely stricter, is made smaller and saved as a test case.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from . import (
    test_bodiless,
    test_chunked,
    test_content_length,
    test_cuts,
    test_excess,
    test_framing,
    test_headers,
    test_status_lines,
    test_statuses,
)
from .corpora import CORPUS, load, save
from .engines import ENGINE, WAYS
from .judging import judge
from .messages import Made

BYTES = [bytes([number]) for number in range(256)]
LIKELY = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"\x00",
    b"-",
    b"+",
    b"\x80",
    b"HTTP/1.1 ",
    b"\r\n\r\n",
]
METHODS = ["GET"] * 8 + ["HEAD", "POST"]
LONGEST = 20_000


def seeds() -> Iterator[bytes]:
    """What the tests have by hand."""
    first, rest = b"HTTP/1.1 200 OK\r\n", b"Content-Length: 4\r\n\r\nabcd"
    yield from test_cuts.RESPONSES.values()
    yield from (
        test_chunked.HEAD + body for body in (*test_chunked.RIGHT.values(), *test_chunked.WRONG.values())
    )
    yield from (first + length + b"\r\ntwelve bytes" for length in test_content_length.LENGTHS.values())
    yield from (first + both + b"\r\n4\r\nabcd\r\n0\r\n\r\n" for both in test_framing.BOTH.values())
    yield from (first + b"Connection: " + value + b"\r\n" + rest for value in test_framing.CONNECTION)
    yield from (first + odd + rest for odd in test_headers.ODD.values())
    yield from (line + test_status_lines.REST for line in test_status_lines.LINES.values())
    yield from (interim + first + rest for interim in test_statuses.INTERIM.values())
    yield from (
        begun + excess for begun in test_excess.FIRST.values() for excess in test_excess.EXCESS.values()
    )
    yield from (first + framing + b"\r\nfives" for framing in test_bodiless.FRAMINGS.values())
    yield from (made.raw for _, made in load())


def bent(chance: random.Random, known: list[bytes]) -> Made:
    """The next one to try."""
    raw = chance.choice(known)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3, 6])):
        at = chance.randint(0, len(raw))
        to = min(len(raw), at + chance.choice([0, 0, 1, 1, 2, 5, 20]))
        match chance.randrange(6):
            case 0:
                raw = raw[:at] + chance.choice(BYTES) + raw[to:]
            case 1 | 2:
                raw = raw[:at] + chance.choice(LIKELY) + raw[to:]
            case 3:
                raw = raw[:at] + raw[to:]
            case 4:
                raw = raw[:to] + raw[at:]
            case _:
                other = chance.choice(known)
                start = chance.randint(0, len(other))
                raw = raw[:at] + other[start : start + chance.choice([5, 20, 200])] + raw[to:]
    raw = raw[:LONGEST]
    cuts = tuple(chance.randint(1, max(1, len(raw))) for _ in range(chance.choice([0, 0, 1, 2, 5])))
    return Made(raw, cuts, ends=True, method=chance.choice(METHODS))


def smaller(made: Made, is_wrong: Callable[[Made], bool], *, tries: int = 60) -> Made:
    """With what it does not need taken out, as far as *tries* go."""
    size = max(1, len(made.raw) // 2)
    while size and tries > 0:
        for at in range(0, len(made.raw), size):
            tries -= 1
            less = replace(made, raw=made.raw[:at] + made.raw[at + size :])
            if tries > 0 and is_wrong(less):
                made = less
                break
        else:
            size //= 2
    return made


def wrongs(made: Made) -> list[str]:
    found = []
    for way in WAYS:
        for is_whole in (True, False):
            found += judge(made, way, is_whole=is_whole, may_be_stricter=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to hunt (default 60)")
    parser.add_argument("--seed", type=int, default=None, help="the same hunt again")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where what differs is saved")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"engine {ENGINE or 'as it is'}, seed {seed}, {options.seconds:g} s", flush=True)
    chance = random.Random(seed)
    known = [raw for raw in dict.fromkeys(seeds()) if len(raw) <= LONGEST]
    until = time.monotonic() + options.seconds
    tried = 0
    saved: set[Path] = set()
    while time.monotonic() < until:
        made = bent(chance, known)
        tried += 1
        if wrongs(made) and (why := wrongs(small := smaller(made, lambda less: bool(wrongs(less))))):
            path = save(small, why, options.corpus)
            if path not in saved:
                saved.add(path)
                print(f"{path}\n  " + "\n  ".join(why), flush=True)
    print(f"{tried} tried, {len(saved)} differ")
    return 1 if saved else 0


if __name__ == "__main__":
    raise SystemExit(main())
