"""From a packet to a question: strict, without an exception, and with nothing read that we don't need.

Nobody may make us answer an answer (that is how two servers talk for ever), and what can't be read gets twelve bytes:
the header, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnslib import QTYPE, DNSError, DNSHeader, DNSQuestion
from dnslib.buffer import BufferError as DnsBufferError
from dnslib.label import DNSBuffer

from .names import Labels, Name, read_name

__all__ = ["MAX_QUERY", "Edns", "Query", "Refusal", "read_query"]

MAX_QUERY = 512
"""Bytes. The longest name takes 255 of them, a client's cookie and padding rarely 150."""

HEADER = 12
"""Bytes of a header: the least that can be answered."""

_MAX_LABEL, _MAX_NAME = 63, 255
_FORMERR, _NOTIMP = 1, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Edns:
    """The client's OPT record. ``size``: the bytes of the longest datagram that it takes; ``do``: it asks for DNSSEC."""

    size: int
    version: int
    do: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question that can be answered. ``labels`` is the name as it was written, ``name`` what it means."""

    id: int
    labels: Labels
    name: Name
    qtype: int
    qclass: int
    edns: Edns | None = None
    recursion_desired: bool = False
    checking_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A query without a question that can be repeated: it gets a header, with *rcode*."""

    id: int
    rcode: int
    opcode: int = 0
    recursion_desired: bool = False


def read_query(packet: bytes) -> Query | Refusal | None:
    """What *packet* asks; a `Refusal` when it is wrong or asks for what we don't do; ``None`` when it gets no answer."""
    if len(packet) < HEADER:
        return None
    buffer = DNSBuffer(packet[:MAX_QUERY])
    header = DNSHeader.parse(buffer)
    if header.qr:
        return None
    rd = bool(header.rd)
    if header.opcode != 0:
        return Refusal(id=header.id, rcode=_NOTIMP, opcode=header.opcode, recursion_desired=rd)
    wrong = Refusal(id=header.id, rcode=_FORMERR, recursion_desired=rd)
    if len(packet) > MAX_QUERY or header.q != 1 or header.a or header.auth:
        return wrong
    try:
        question = DNSQuestion.parse(buffer)
        labels: Labels = tuple(question.qname.label)
        if not _is_name(labels):
            return wrong
        options = [edns for _ in range(header.ar) if (edns := _read_additional(buffer)) is not None]
    except (DNSError, DnsBufferError, RecursionError):
        return wrong
    if len(options) > 1 or buffer.remaining():
        return wrong
    return Query(
        id=header.id,
        labels=labels,
        name=read_name(labels),
        qtype=question.qtype,
        qclass=question.qclass,
        edns=options[0] if options else None,
        recursion_desired=rd,
        checking_disabled=bool(header.cd),
    )


def _is_name(labels: Labels) -> bool:
    """Whether the name has a legal length: the library reads longer ones than it can write."""
    return (
        all(len(label) <= _MAX_LABEL for label in labels)
        and sum(map(len, labels), len(labels) + 1) <= _MAX_NAME
    )


def _read_additional(buffer: DNSBuffer) -> Edns | None:
    """Step over one record of the additional section; its content if it is an OPT. What is in other records is not read."""
    owner = buffer.decode_name()
    rtype, rclass, ttl, length = buffer.unpack("!HHIH")
    buffer.get(length)
    if rtype != QTYPE.OPT:
        return None
    if owner.label:
        raise DNSError("an OPT record that is not the root's")
    return Edns(size=rclass, version=ttl >> 16 & 0xFF, do=bool(ttl & 0x8000))
