"""What a registry can do: `Registry` and `Lease`, and the values that pass between them and us.

A registry is raw on purpose: it may fail, and it does not recover. Recovery stands once, in the watch machine and in the
keeper of a registration; so a registry is little code, and each one fails in the same few ways.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from ..model.errors import RegistryUnavailable

__all__ = [
    "Batch",
    "Deletion",
    "Doubtable",
    "Entry",
    "Lease",
    "Listing",
    "MemberStatus",
    "Probe",
    "Proof",
    "Put",
    "Registry",
    "Untrusted",
]


class Untrusted(RegistryUnavailable):
    """TLS as the address has it can't work: a certificate, theirs or ours, is not taken. Asking again helps only once
    somebody has mended that; so whoever waits for a first answer need not wait any longer.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as the registry holds it. ``lease`` is 0 for a key without a lease."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Every key of a range as of ``revision``."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Deletion:
    """A key that was deleted, at ``mod_revision``."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes of one or more *whole* revisions, in order.

    ``revision`` is the registry's own when it spoke. A batch without changes says that the watch is alive, and no more: the
    progress notifications of etcd before 3.4.25 and 3.5.8 may run ahead of the events (etcd issue 15220). ``proof``: what
    somebody else who shares the watch found out.
    """

    revision: int
    changes: tuple[Entry | Deletion, ...] = ()
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """A linearizable answer to "is what I know as of revision R all there is?".

    ``newest`` is the ``mod_revision`` of a key changed after R, or 0 if there is none; ``count`` is how many keys the range has
    (valid or not); ``revision`` is the registry's own, as of the answer. ``last`` is the newest key of all, unless it was
    changed after R or there is none: who knows another one has another history, as after a restored backup.
    """

    revision: int
    newest: int
    count: int
    last: Entry | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """The probe that somebody else asked for: it found no key that was put after revision ``after``."""

    after: int
    probe: Probe


@dataclass(frozen=True, slots=True)
class Put:
    """What came of a conditional put: done at ``revision``, or refused because of ``present`` (``None``: no such key)."""

    is_done: bool
    revision: int
    present: Entry | None = None


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member says of itself; ``latency`` in seconds. With ``error`` the rest is unknown."""

    name: str
    version: str = ""
    revision: int = 0
    is_leader: bool = False
    has_leader: bool = False
    latency: float = 0.0
    error: str = ""


class Lease(Protocol):
    """A lease that dies unless it is renewed, with every key that it holds."""

    @property
    def id(self) -> int: ...

    @property
    def ttl(self) -> float:
        """Seconds, as granted, which may be more than was asked."""

    async def renew(self) -> float:
        """Renew once; returns the granted ttl. Raises `LeaseExpired` when it is gone, `RegistryError` for all else."""

    async def revoke(self) -> None:
        """End it now. A lease that is gone already is no error."""


class Registry(Protocol):
    """A store of keys with revisions, leases and watches. Ranges: what ends in ``/`` is every key below, else one key."""

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        """Every key of *range*, linearizable unless *serializable* (one member's word, which may be old)."""

    async def children(self, range: str) -> tuple[str, ...]:
        """The keys of *range* that hold a lease, without their values, linearizable."""

    def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        """What changes in *range* after revision *after*, beginning with an empty batch when the watch stands.

        Ends only by raising: `RevisionCompacted` when the history is gone, any other `RegistryError` when the watch broke.
        """

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        """Whether anything in *range* changed after *after*, asked of another member than the watch's where there is one.

        With *is_past*, how *range* was at revision *after*, whatever happened since. Raises `RevisionCompacted` if the
        registry does not have that revision: no longer, or not yet.
        """

    async def grant(self, ttl: float) -> Lease:
        """A new lease of *ttl* seconds (whole ones, rounded up)."""

    async def put(self, key: str, value: bytes, *, lease: Lease, expected: int | None) -> Put:
        """Put in one transaction, if the key's ``mod_revision`` is *expected* (0: the key does not exist; ``None``: whatever
        it is, for a key that is ours alone).
        """

    async def attach(
        self,
        entry: Entry,
        key: str,
        value: bytes,
        *,
        expected: int,
        unchanged: Mapping[str, int] = MappingProxyType({}),
    ) -> Put:
        """Put *key* under the lease of *entry*, so that it dies with it: in one transaction, if *entry* still stands as it is
        and the ``mod_revision`` of *key* is *expected*, and those of other keys are as *unchanged* has them (0: no such key).
        If it is not done, ``present`` is what stands at *key* now.
        """

    async def delete(self, key: str) -> None:
        """Delete a key that is ours alone. One that is not there is no error."""

    async def status(self) -> tuple[MemberStatus, ...]:
        """Every member's word on itself; empty for a registry without members. Does not raise for a member that is down."""

    async def aclose(self) -> None:
        """Close connections. Leases are left alone."""


@runtime_checkable
class Doubtable(Protocol):
    """A registry whose watches may be one for several readers, so that a new one is not always another one."""

    def doubt(self, range: str) -> None:
        """The watch of *range* delivered what can't be, or not all there is: the next one must be another one."""
