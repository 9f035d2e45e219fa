"""Replies as bytes: what fits, what is cut, and what stands in every one of them. By dnslib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from dnslib import EDNS0, QTYPE, RR, SOA, DNSHeader, DNSLabel, DNSQuestion, DNSRecord, EDNSOption

from .limits import PLAIN_SIZE, STREAM_SIZE, Limits
from .names import Labels
from .queries import HEADER, Query, Refusal

__all__ = [
    "Answer",
    "NOERROR",
    "NXDOMAIN",
    "REFUSED",
    "SERVFAIL",
    "negative",
    "pack",
    "pack_within",
    "refuse",
    "soa",
]

Answer: TypeAlias = tuple[RR, RR | None]
"""An A, AAAA or SRV record for the name in the question, and the address that may come along (glue)."""

NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
_OPT_LENGTH, _POINTER_LENGTH = 11, 2


def refuse(refusal: Refusal) -> bytes:
    """The twelve bytes for a query whose question can't be repeated."""
    header = DNSHeader(
        id=refusal.id,
        bitmap=0,
        qr=1,
        opcode=refusal.opcode,
        rd=int(refusal.recursion_desired),
        rcode=refusal.rcode,
    )
    return bytes(DNSRecord(header).pack())


def soa(query: Query, limits: Limits) -> RR:
    """The zone's SOA. Its last number is how long, in seconds, a "no" may be kept."""
    zone = query.labels[-1:]
    times = (1, 3600, 600, 86_400, limits.ttl)
    data = SOA(DNSLabel(zone), DNSLabel((b"hostmaster", *zone)), times)
    return RR(DNSLabel(zone), QTYPE.SOA, ttl=limits.ttl, rdata=data)


def _datagram(query: Query, limits: Limits) -> int:
    return PLAIN_SIZE if query.edns is None else min(limits.datagram, max(PLAIN_SIZE, query.edns.size))


def _wire_length(labels: Labels) -> int:
    return sum(map(len, labels), len(labels) + 1)


def _length(record: RR) -> int:
    """Bytes of an A, AAAA or SRV record without its owner's name."""
    if record.rtype == QTYPE.SRV:
        return 10 + 6 + _wire_length(record.rdata.target.label)
    return 10 + (4 if record.rtype == QTYPE.A else 16)


def pack_within(query: Query, limits: Limits, answers: Iterable[Answer], *, stream: bool) -> bytes:
    """As many answers as fit; in a datagram that lacks some is the bit that sends the client to TCP. Glue fills the rest."""
    size = STREAM_SIZE if stream else _datagram(query, limits)
    room = size - HEADER - _wire_length(query.labels) - 4 - (_OPT_LENGTH if query.edns is not None else 0)
    taken: list[RR] = []
    glue: list[RR] = []
    for record, address in answers:
        length = _POINTER_LENGTH + _length(record)  # its owner is the name in the question
        if length > room:
            return pack(query, limits, answers=taken, is_cut=not stream)
        room -= length
        taken.append(record)
        if address is not None:
            glue.append(address)
    added = []
    for record in glue:
        room -= _wire_length(record.rname.label) + _length(record)
        if room < 0:
            break
        added.append(record)
    return pack(query, limits, answers=taken, glue=added)


def negative(query: Query, limits: Limits, *, rcode: int = NOERROR) -> bytes:
    """There is no such name, or no such record: both may be kept for as long as the SOA says (RFC 2308)."""
    return pack(query, limits, rcode=rcode, authority=[soa(query, limits)])


def pack(
    query: Query,
    limits: Limits,
    *,
    rcode: int = NOERROR,
    answers: Sequence[RR] = (),
    authority: Sequence[RR] = (),
    glue: Sequence[RR] = (),
    options: Sequence[EDNSOption] = (),
    is_cut: bool = False,
    is_bad_version: bool = False,
) -> bytes:
    """A reply to *query*. *options* are sent only to a client that speaks EDNS, as is BADVERS."""
    header = DNSHeader(
        id=query.id,
        bitmap=0,
        qr=1,
        aa=int(rcode in (NOERROR, NXDOMAIN) and not is_bad_version),
        tc=int(is_cut),
        rd=int(query.recursion_desired),
        cd=int(query.checking_disabled),
        rcode=rcode,
    )
    question = DNSQuestion(DNSLabel(query.labels), query.qtype, query.qclass)
    record = DNSRecord(header, [question], list(answers), auth=list(authority), ar=list(glue))
    if query.edns is not None:
        flags = "do" if query.edns.do else ""
        extended = 1 if is_bad_version else 0  # BADVERS is 16, its upper bits
        record.add_ar(EDNS0(flags=flags, udp_len=limits.datagram, ext_rcode=extended, opts=list(options)))
    return bytes(record.pack())
