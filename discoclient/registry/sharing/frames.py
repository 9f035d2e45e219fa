"""What lender and borrower say to each other, as bytes. Pure. What can't be read is a `Garbled`, and ends the connection.

A frame is a head (length of the payload, kind, id) and a payload. The id is the borrower's: an answer has its question's, what
a watch delivers has the watch's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from struct import error as StructError
from typing import Any

from ...model.errors import RegistryDenied, RegistryError, RegistryUnavailable, RevisionCompacted
from ..protocol import Batch, Deletion, Entry, Listing, Probe, Proof

__all__ = [
    "HEAD",
    "MAX_FRAME",
    "VERSION",
    "Garbled",
    "Kind",
    "Question",
    "decode_batch",
    "decode_error",
    "decode_listing",
    "decode_probe",
    "decode_question",
    "decode_words",
    "encode_batch",
    "encode_error",
    "encode_listing",
    "encode_probe",
    "encode_question",
    "encode_words",
    "head",
    "read_head",
]

VERSION = 1
"""Of what is said here. Versions don't mix: it is part of the socket's name."""
MAX_FRAME = 64 << 20
"""Bytes: 10,000 instances of the largest size, with room to spare. What is larger is not shared."""
MAX_WORDS = 64 << 10
"""Bytes of a frame that is no listing and no batch."""

MAX_NUMBER = 1 << 62

_HEAD = Struct(">IBI")
HEAD = _HEAD.size

_CHANGE = Struct(">BIIqqq")  # deletion or entry, length of key and of value, create and mod revision, lease
_REVISION = Struct(">qB")  # with whether a proof follows
_PROBE = Struct(">qqqB")  # revision, newest, count; whether the newest key follows
_AFTER = Struct(">q")
_DELETION, _ENTRY = 0, 1


class Garbled(Exception):
    """The other side says what nobody of ours would."""


class Kind(IntEnum):
    GREETING = 1
    HELLO = 2
    WELCOME = 3
    BEAT = 4
    LIST = 5
    PROBE = 6
    WATCH = 7
    LEAVE = 8
    DOUBT = 9
    LISTING = 10
    PROBED = 11
    BATCH = 12
    FAILED = 13


_LARGE = {Kind.LISTING, Kind.BATCH}


@dataclass(frozen=True, slots=True)
class Question:
    """What a borrower asks for."""

    range: str
    after: int = 0
    is_past: bool = False


def head(kind: Kind, id: int, length: int) -> bytes:
    return _HEAD.pack(length, kind, id)


def read_head(data: bytes) -> tuple[int, Kind, int]:
    """The length of the payload, the kind and the id."""
    length, number, id = _HEAD.unpack(data)
    try:
        kind = Kind(number)
    except ValueError:
        raise Garbled(f"there is no frame of kind {number}") from None
    if length > (MAX_FRAME if kind in _LARGE else MAX_WORDS):
        raise Garbled(f"a frame of {length} bytes")
    return length, kind, id


# ---- words: small things, as JSON


def encode_words(**words: object) -> bytes:
    return json.dumps(words).encode()


def decode_words(payload: bytes, **kinds: type) -> dict[str, Any]:
    """The words of these names, each of its kind."""
    try:
        words = json.loads(payload)
    except (ValueError, RecursionError):
        raise Garbled("that is no JSON") from None
    if not isinstance(words, dict):
        raise Garbled("that is no object")
    for name, kind in kinds.items():
        if type(words.get(name)) is not kind or (kind is int and not 0 <= words[name] < MAX_NUMBER):
            raise Garbled(f"{name} is not what it should be")
    return words


def encode_question(question: Question) -> bytes:
    return encode_words(range=question.range, after=question.after, is_past=question.is_past)


def decode_question(payload: bytes) -> Question:
    words = decode_words(payload, range=str, after=int, is_past=bool)
    return Question(words["range"], words["after"], words["is_past"])


def encode_error(error: RegistryError) -> bytes:
    kind = "compacted" if isinstance(error, RevisionCompacted) else "unavailable"
    kind = "denied" if isinstance(error, RegistryDenied) else kind
    return encode_words(kind=kind, text=str(error)[:1000], oldest=max(0, getattr(error, "oldest", 0)))


def decode_error(payload: bytes) -> RegistryError:
    words = decode_words(payload, kind=str, text=str, oldest=int)
    match words["kind"]:
        case "compacted":
            return RevisionCompacted(words["text"], oldest=words["oldest"])
        case "denied":
            return RegistryDenied(words["text"])
    return RegistryUnavailable(words["text"])


# ---- what the registry holds


def encode_listing(listing: Listing) -> bytes:
    return b"".join([_AFTER.pack(listing.revision), *map(_pack, listing.entries)])


def decode_listing(payload: bytes, range: str) -> Listing:
    """Raises `Garbled`, also for a key that is not in *range*."""
    (revision,), at = _unpack(_AFTER, payload, 0)
    changes = _changes(payload, at, range)
    entries = tuple(change for change in changes if isinstance(change, Entry))
    if len(entries) != len(changes):
        raise Garbled("a deletion in a listing")
    return Listing(_revision(revision), entries)


def encode_batch(batch: Batch) -> bytes:
    proof = b"" if batch.proof is None else _AFTER.pack(batch.proof.after) + encode_probe(batch.proof.probe)
    return b"".join(
        [_REVISION.pack(batch.revision, batch.proof is not None), proof, *map(_pack, batch.changes)]
    )


def decode_batch(payload: bytes, range: str) -> Batch:
    (revision, has_proof), at = _unpack(_REVISION, payload, 0)
    proof = None
    if has_proof:
        (after,), at = _unpack(_AFTER, payload, at)
        probe, at = _read_probe(payload, at, range)
        proof = Proof(_revision(after), probe)
    return Batch(_revision(revision), tuple(_changes(payload, at, range)), proof)


def encode_probe(probe: Probe) -> bytes:
    last = b"" if probe.last is None else _pack(probe.last)
    return _PROBE.pack(probe.revision, probe.newest, probe.count, probe.last is not None) + last


def decode_probe(payload: bytes, range: str) -> Probe:
    probe, at = _read_probe(payload, 0, range)
    if at != len(payload):
        raise Garbled("more than a probe")
    return probe


def _read_probe(payload: bytes, at: int, range: str) -> tuple[Probe, int]:
    (revision, newest, count, has_last), at = _unpack(_PROBE, payload, at)
    last = None
    if has_last:
        found, at = _read(payload, at, range)
        if not isinstance(found, Entry):
            raise Garbled("a deletion in a probe")
        last = found
    return Probe(_revision(revision), _revision(newest), _revision(count), last), at


def _pack(change: Entry | Deletion) -> bytes:
    key = change.key.encode("utf-8", "surrogateescape")
    if isinstance(change, Deletion):
        return _CHANGE.pack(_DELETION, len(key), 0, 0, change.mod_revision, 0) + key
    value = change.value
    numbers = change.create_revision, change.mod_revision, change.lease
    return b"".join((_CHANGE.pack(_ENTRY, len(key), len(value), *numbers), key, value))


def _changes(payload: bytes, at: int, range: str) -> Sequence[Entry | Deletion]:
    found: list[Entry | Deletion] = []
    while at < len(payload):
        change, at = _read(payload, at, range)
        found.append(change)
    return found


def _read(payload: bytes, at: int, range: str) -> tuple[Entry | Deletion, int]:
    (kind, key_length, value_length, created, modified, lease), at = _unpack(_CHANGE, payload, at)
    end = at + key_length + value_length
    if end > len(payload) or kind not in (_DELETION, _ENTRY) or modified <= 0:
        raise Garbled("what is no change of a key")
    key = payload[at : at + key_length].decode("utf-8", "surrogateescape")
    if not key.startswith(range):
        raise Garbled("a key that was not asked for")
    if kind == _DELETION:
        return Deletion(key, modified), end
    return Entry(key, payload[at + key_length : end], created, modified, lease), end


def _unpack(form: Struct, payload: bytes, at: int) -> tuple[tuple[Any, ...], int]:
    try:
        return form.unpack_from(payload, at), at + form.size
    except StructError:
        raise Garbled("a frame that ends too soon") from None


def _revision(number: int) -> int:
    if number < 0:
        raise Garbled(f"{number} is no revision")
    return number
