"""What is answered to a question, given what is known of the service. Chance and knowledge are arguments.

Who is called with which share is decided as far as DNS can: addresses come in a random order in which a larger weight
is more often first, SRV records carry the weight. Instances that are unready or have weight 0 come into play only when
there is no other (SRV: priority 1), those that drain never.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from random import Random
from typing import TypeVar

from dnslib import AAAA, QTYPE, RD, RR, SRV, A, DNSLabel, EDNSOption

from discoclient.model.instance import Instance, State

from .limits import DEFAULT_LIMITS, Limits
from .names import Kind, Labels, instance_label
from .packets import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, Answer, negative, pack, pack_within, refuse, soa
from .queries import Query, Refusal, read_query

__all__ = ["answer", "fail", "reply", "wanted"]

T = TypeVar("T")

_IN, _ANY = 1, 255
_META = {QTYPE.OPT, *range(128, 255)}
_HINFO = 13
_EXTENDED_ERROR, _NOT_READY = 15, 14
_MAX_WEIGHT = 65535
_HOST = re.compile(
    r"(?=.{1,253}\.?\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def reply(
    packet: bytes,
    lookup: Callable[[str], Sequence[Instance] | None],
    *,
    rng: Random,
    limits: Limits = DEFAULT_LIMITS,
    stream: bool = False,
) -> bytes | None:
    """The answer to *packet*, or ``None`` when it gets none. *stream*: it came over TCP.

    *lookup* gives the instances of a service that may be called, an empty sequence when there is no such service, and
    ``None`` when nothing is known.
    """
    query = read_query(packet)
    if query is None:
        return None
    if isinstance(query, Refusal):
        return refuse(query)
    service = wanted(query)
    found = lookup(service) if service is not None else None
    return answer(query, found, rng=rng, limits=limits, stream=stream)


def wanted(query: Query) -> str | None:
    """The service that has to be looked up for the answer; ``None`` when it doesn't depend on any."""
    return None if _rejected(query) else query.name.service


def answer(
    query: Query,
    found: Sequence[Instance] | None,
    *,
    rng: Random,
    limits: Limits = DEFAULT_LIMITS,
    stream: bool = False,
) -> bytes:
    """The answer to *query* when *found* is what is known of its service (see `reply`)."""
    name = query.name
    if _rejected(query):
        bad_version = query.edns is not None and query.edns.version != 0
        return pack(query, limits, rcode=NOERROR if bad_version else REFUSED, is_bad_version=bad_version)
    if name.kind is Kind.MISSING:
        return negative(query, limits, rcode=NXDOMAIN)
    if name.service is None:  # the zone itself, or `_tcp.` of it
        if name.kind is Kind.APEX and query.qtype in (QTYPE.SOA, _ANY):
            return pack(query, limits, answers=[soa(query, limits)])
        return negative(query, limits)
    if found is None:
        return fail(query, limits=limits)
    there = [each for each in found if name.scheme in (None, each.scheme)]
    if name.kind is Kind.INSTANCE:
        there = [each for each in there if instance_label(each.id) == name.instance]
    if not there:
        return negative(query, limits, rcode=NXDOMAIN)
    if query.qtype == _ANY and name.kind is not Kind.BETWEEN:
        return pack(query, limits, answers=[_minimal(query, limits)])
    callable_ = [each for each in there if each.state is not State.DRAINING]
    answers: Iterator[Answer] = iter(())
    if query.qtype in (QTYPE.A, QTYPE.AAAA) and name.kind in (Kind.SERVICE, Kind.INSTANCE):
        answers = islice(_addresses(query, callable_, rng, limits), limits.addresses)
    elif query.qtype == QTYPE.SRV and name.kind in (Kind.SERVICE, Kind.SRV):
        answers = islice(_services(query, callable_, rng, limits), limits.instances)
    first = next(answers, None)
    if first is None:
        return negative(query, limits)
    return pack_within(query, limits, chain((first,), answers), stream=stream)


def fail(query: Query, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """SERVFAIL: nothing is known of the service, and that is no "no". The client's next resolver may know more."""
    why = EDNSOption(_EXTENDED_ERROR, struct.pack("!H", _NOT_READY) + b"nothing is known of this service yet")
    return pack(query, limits, rcode=SERVFAIL, options=[why])


def _rejected(query: Query) -> bool:
    """Whether the question is one that we don't answer, whatever is registered."""
    if query.edns is not None and query.edns.version != 0:
        return True
    return query.qclass != _IN or query.name.kind is Kind.OUTSIDE or query.qtype in _META


# --- records ---------------------------------------------------------------------------------------------------------


def _is_preferred(instance: Instance) -> bool:
    return instance.state is State.READY and instance.weight > 0


@lru_cache(maxsize=4096)
def _address(host: str) -> _Address | None:
    """The address that *host* is; ``None`` if it is a name, or an address that means nothing elsewhere."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return None if address.scope_id is not None else address.ipv4_mapped or address


def _data(address: _Address) -> RD:
    kind = A if isinstance(address, ipaddress.IPv4Address) else AAAA
    return kind(tuple(address.packed))


def _shuffled(weights: Iterable[tuple[T, float]], rng: Random) -> list[T]:
    """In random order: each is next with the probability of its share of the weights that are left; weight 0 is last."""
    drawn = []
    for what, weight in weights:
        draw = rng.expovariate(1.0)
        drawn.append((weight <= 0, draw / weight if weight > 0 else draw, what))
    drawn.sort(key=lambda each: each[:2])
    return [what for _, _, what in drawn]


def _addresses(query: Query, instances: Sequence[Instance], rng: Random, limits: Limits) -> Iterator[Answer]:
    """A or AAAA records; made one by one, because only few of many are taken."""
    version = 4 if query.qtype == QTYPE.A else 6
    some = [each for each in instances if _is_preferred(each)] or instances
    weights: dict[_Address, float] = {}
    for instance in some:
        address = _address(instance.host)
        if address is not None and address.version == version:
            weights[address] = weights.get(address, 0.0) + instance.weight
    owner = DNSLabel(query.labels)
    for address in _shuffled(weights.items(), rng):
        yield RR(owner, query.qtype, ttl=limits.ttl, rdata=_data(address)), None


def _services(query: Query, instances: Sequence[Instance], rng: Random, limits: Limits) -> Iterator[Answer]:
    """SRV records, the preferred ones first, each with the address of its target; made one by one."""
    owner = DNSLabel(query.labels)
    for priority, is_preferred in enumerate((True, False)):
        group = [each for each in instances if _is_preferred(each) is is_preferred]
        scale = _scale([each.weight for each in group])
        for instance in _shuffled(((each, each.weight) for each in group), rng):
            address = _address(instance.host)
            target = _target(query, instance, address)
            if target is None:
                continue
            weight = min(_MAX_WEIGHT, max(1, round(instance.weight * scale))) if instance.weight > 0 else 0
            data = SRV(priority, weight, instance.port, DNSLabel(target))
            glue = None
            if address is not None:
                kind = QTYPE.A if address.version == 4 else QTYPE.AAAA
                glue = RR(DNSLabel(target), kind, ttl=limits.ttl, rdata=_data(address))
            yield RR(owner, QTYPE.SRV, ttl=limits.ttl, rdata=data), glue


def _scale(weights: Sequence[float]) -> float:
    """1 when the weights are what SRV can carry, so that `dig` shows what was set; else the largest becomes 65535."""
    if all(weight == round(weight) and weight <= _MAX_WEIGHT for weight in weights):
        return 1.0
    return _MAX_WEIGHT / max(weights)


def _target(query: Query, instance: Instance, address: _Address | None) -> Labels | None:
    """The name in an instance's SRV record: ours for an address, its own for a host name; ``None`` if it has none."""
    if address is not None:
        return (instance_label(instance.id).encode(), *query.name.base)
    host = instance.host.lower()
    return tuple(host.rstrip(".").encode().split(b".")) if _HOST.fullmatch(host) else None


def _minimal(query: Query, limits: Limits) -> RR:
    """What RFC 8482 answers to ANY: one record that says that there is no list of all."""
    return RR(DNSLabel(query.labels), _HINFO, ttl=limits.ttl, rdata=RD(b"\x07RFC8482\x00"))
