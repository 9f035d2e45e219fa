"""Queries and replies of the sidecar's DNS by dnspython, which shares no code with what is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from disco_sidecar.dns.answers import reply
from disco_sidecar.dns.limits import DEFAULT_LIMITS, Limits
from discoclient.model.instance import Instance

__all__ = ["Known", "asked", "find", "instance", "records", "status"]

Known = Mapping[str, Sequence[Instance] | None]


def instance(number: int, **fields: Any) -> Instance:
    """Instance *number* of ``web``: its id and its address have that number."""
    given = {
        "service": "web",
        "id": f"web-{number:06}",
        "host": f"10.0.{number // 256}.{number % 256}",
        "port": 8000,
    }
    return Instance(**(given | fields))


def find(
    name: str,
    rdtype: str,
    known: Known,
    *,
    seed: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    stream: bool = False,
    **options: Any,
) -> dns.message.Message:
    """The reply to a question. *known*: the instances by service; a service that isn't there has none."""
    query = dns.message.make_query(name, rdtype, **options)
    sent = reply(
        query.to_wire(),
        lambda service: known.get(service, ()),
        rng=Random(seed),
        limits=limits,
        stream=stream,
    )
    assert sent is not None
    return asked(query, sent)


def asked(query: dns.message.Message, sent: bytes) -> dns.message.Message:
    """*sent*, read strictly and as the reply to *query*."""
    answer = dns.message.from_wire(sent)
    assert query.is_response(answer)
    return answer


def records(answer: dns.message.Message, section: str = "answer") -> list[str]:
    """``type data`` of every record, in their order."""
    return [
        f"{dns.rdatatype.to_text(each.rdtype)} {data.to_text()}"
        for each in getattr(answer, section)
        for data in each
    ]


def status(answer: dns.message.Message) -> str:
    """``NOERROR``, ``NODATA``, ``NXDOMAIN`` and so on."""
    code = dns.rcode.to_text(answer.rcode())
    return "NODATA" if code == "NOERROR" and not answer.answer and not answer.flags & dns.flags.TC else code
