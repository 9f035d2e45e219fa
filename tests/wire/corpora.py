"""Responses on which the two sides once differed, one a file: what the fuzzer finds, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from .messages import Made

__all__ = ["CORPUS", "load", "save"]

CORPUS = Path(__file__).parent / "corpus"


def save(made: Made, why: list[str], folder: Path = CORPUS) -> Path:
    """Into a file whose name follows from the response, so that the same one is kept once."""
    digest = hashlib.blake2b(repr(made).encode(), digest_size=6).hexdigest()
    path = folder / f"{digest}.json"
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "raw": made.raw.decode("latin-1"),
        "cuts": list(made.cuts),
        "ends": made.ends,
        "method": made.method,
        "why": why,
    }
    path.write_text(json.dumps(fields, indent=1) + "\n")
    return path


def load(folder: Path = CORPUS) -> Iterator[tuple[str, Made]]:
    """By name."""
    for path in sorted(folder.glob("*.json")):
        fields = json.loads(path.read_text())
        raw = fields["raw"].encode("latin-1")
        yield path.stem, Made(raw, tuple(fields["cuts"]), ends=fields["ends"], method=fields["method"])
