"""What lender and borrower say to each other: it comes out as it went in, and garbage is a `Garbled` and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.model.errors import RegistryDenied, RegistryError, RegistryUnavailable, RevisionCompacted
from discoclient.registry.protocol import Batch, Deletion, Entry, Listing, Probe, Proof
from discoclient.registry.sharing import frames
from discoclient.registry.sharing.frames import Garbled, Kind, Question
from tests.support.properties import thorough

RANGE = "/p/services/web/"
NUMBERS = st.integers(1, 2**62)
KEYS = st.binary(max_size=20).map(lambda key: RANGE + key.decode("utf-8", "surrogateescape"))
ENTRIES = st.builds(Entry, KEYS, st.binary(max_size=50), NUMBERS, NUMBERS, st.integers(-(2**63), 2**63 - 1))
DELETIONS = st.builds(Deletion, KEYS, NUMBERS)
PROBES = st.builds(Probe, NUMBERS, st.integers(0, 2**40), st.integers(0, 2**40), st.none() | ENTRIES)
PROOFS = st.none() | st.builds(Proof, NUMBERS, PROBES)
CHANGES = st.lists(ENTRIES | DELETIONS, max_size=5).map(tuple)
READERS: list[Callable[[bytes], Any]] = [
    lambda data: frames.decode_listing(data, RANGE),
    lambda data: frames.decode_batch(data, RANGE),
    lambda data: frames.decode_probe(data, RANGE),
    frames.decode_question,
    frames.decode_error,
]


@thorough(100)
@given(st.integers(0, 2**60), st.lists(ENTRIES, max_size=5).map(tuple))
def test_a_listing_comes_out_as_it_went_in(revision: int, entries: tuple[Entry, ...]) -> None:
    listing = Listing(revision, entries)
    assert frames.decode_listing(frames.encode_listing(listing), RANGE) == listing


@thorough(100)
@given(NUMBERS, CHANGES, PROOFS)
def test_a_batch_comes_out_as_it_went_in(revision: int, changes: Any, proof: Proof | None) -> None:
    batch = Batch(revision, changes, proof)
    assert frames.decode_batch(frames.encode_batch(batch), RANGE) == batch


@thorough(100)
@given(PROBES)
def test_a_probe_comes_out_as_it_went_in(probe: Probe) -> None:
    assert frames.decode_probe(frames.encode_probe(probe), RANGE) == probe


@pytest.mark.parametrize("question", [Question(RANGE), Question(RANGE, 7), Question(RANGE, 7, True)])
def test_a_question_comes_out_as_it_went_in(question: Question) -> None:
    assert frames.decode_question(frames.encode_question(question)) == question


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RevisionCompacted("gone", oldest=7), RevisionCompacted),
        (RegistryDenied("no"), RegistryDenied),
        (RegistryUnavailable("down"), RegistryUnavailable),
        (RegistryError("a bug"), RegistryUnavailable),
    ],
)
def test_an_error_keeps_its_kind_and_its_words(error: RegistryError, kind: type[RegistryError]) -> None:
    found = frames.decode_error(frames.encode_error(error))
    assert (type(found), str(found)) == (kind, str(error))
    assert getattr(found, "oldest", 0) == getattr(error, "oldest", 0)


@thorough(300)
@given(st.binary(max_size=120))
def test_garbage_is_garbled_and_nothing_else(data: bytes) -> None:
    for read in READERS:
        with contextlib.suppress(Garbled):
            read(data)


@thorough(300)
@given(NUMBERS, CHANGES, PROOFS, st.data())
def test_a_frame_that_was_changed_on_its_way_is_read_or_garbled(
    revision: int, changes: Any, proof: Proof | None, data: st.DataObject
) -> None:
    frame = bytearray(frames.encode_batch(Batch(revision, changes, proof)))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    for read in READERS:
        with contextlib.suppress(Garbled):
            read(bytes(frame))


def test_every_frame_that_ends_too_soon_is_garbled() -> None:
    entry = Entry(f"{RANGE}a", b"value", 1, 2, 3)
    probe = Probe(9, 0, 1, entry)
    whole = frames.encode_batch(Batch(9, (entry,), Proof(5, probe)))
    ends = [at for at in range(len(whole)) if _is_read(whole[:at])]
    assert ends == [len(whole) - len(frames.encode_listing(Listing(0, (entry,)))) + 8], "before its change"
    last = frames.encode_probe(probe)
    for at in range(len(last)):
        with pytest.raises(Garbled):
            frames.decode_probe(last[:at], RANGE)


def _is_read(data: bytes) -> bool:
    try:
        frames.decode_batch(data, RANGE)
    except Garbled:
        return False
    return True


def test_a_key_that_was_not_asked_for_is_garbled() -> None:
    listing = frames.encode_listing(Listing(9, (Entry("/p/services/other/a", b"", 1, 2, 3),)))
    with pytest.raises(Garbled, match="not asked for"):
        frames.decode_listing(listing, RANGE)


@pytest.mark.parametrize("length", [frames.MAX_FRAME + 1, 2**32 - 1])
def test_a_frame_that_claims_to_be_huge_is_not_waited_for(length: int) -> None:
    with pytest.raises(Garbled):
        frames.read_head(frames.head(Kind.LISTING, 1, length))
    with pytest.raises(Garbled):
        frames.read_head(frames.head(Kind.HELLO, 1, frames.MAX_WORDS + 1))
    assert frames.read_head(frames.head(Kind.LISTING, 1, frames.MAX_FRAME))[1] is Kind.LISTING


def test_a_kind_that_does_not_exist_is_garbled() -> None:
    with pytest.raises(Garbled):
        frames.read_head(b"\0\0\0\0\xff\0\0\0\0")
