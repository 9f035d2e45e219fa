"""What does a name under ``disco.`` mean? And how is an instance called there?

| name                             | records                               |
|----------------------------------|---------------------------------------|
| ``disco.``                       | SOA                                   |
| ``<service>.disco.``             | A, AAAA and SRV                       |
| ``_<service>._tcp.disco.``       | SRV                                   |
| ``_http._tcp.<service>.disco.``  | SRV of the instances that speak http  |
| ``_https._tcp.<service>.disco.`` | SRV of those that speak https         |
| ``<instance>.<service>.disco.``  | A or AAAA of one instance             |

``_tcp.disco.`` and ``_tcp.<service>.disco.`` exist without records of their own: whoever asks label by label must not be
told that there is nothing below.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from discoclient.model.instance import SERVICE_PATTERN

__all__ = ["ZONE", "Kind", "Labels", "Name", "instance_label", "read_name"]

Labels = tuple[bytes, ...]
"""A name, cut at its dots, without the root; in the case in which it was asked for."""

ZONE = b"disco"
"""The top-level name that we answer for."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SCHEMES = {b"_http": "http", b"_https": "https"}


class Kind(Enum):
    """What stands at a name."""

    OUTSIDE = auto()
    """Nothing of ours."""
    APEX = auto()
    """The zone itself."""
    MISSING = auto()
    """Nothing, whatever is registered."""
    BETWEEN = auto()
    """Something below, no records of its own."""
    SERVICE = auto()
    """Addresses and SRV records of a service."""
    SRV = auto()
    """SRV records of a service."""
    INSTANCE = auto()
    """The address of one instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name that has been read.

    ``base`` is its ``<service>.disco.`` in the case of the query (empty where there is no service), ``service`` the same
    service as the registry writes it. ``scheme`` is set when only such instances are meant, ``instance`` is the label
    of the one that is meant.
    """

    kind: Kind
    service: str | None = None
    base: Labels = ()
    scheme: str | None = None
    instance: str | None = None


def read_name(labels: Sequence[bytes]) -> Name:
    """What *labels* mean. Upper and lower case are the same."""
    if not labels or labels[-1].lower() != ZONE:
        return Name(kind=Kind.OUTSIDE)
    apex = labels[-1]
    match [label.lower() for label in labels[:-1]]:
        case []:
            return Name(kind=Kind.APEX)
        case [b"_tcp"]:
            return Name(kind=Kind.BETWEEN)
        case [name, b"_tcp"] if name.startswith(b"_"):
            return _below(Kind.SRV, labels[0][1:], apex)
        case [_]:
            return _below(Kind.SERVICE, labels[0], apex)
        case [b"_tcp", _]:
            return _below(Kind.BETWEEN, labels[1], apex)
        case [scheme, b"_tcp", _] if scheme in _SCHEMES:
            return _below(Kind.SRV, labels[2], apex, scheme=_SCHEMES[scheme])
        case [instance, _] if _LABEL.fullmatch(_text(instance)):
            return _below(Kind.INSTANCE, labels[1], apex, instance=_text(instance))
    return Name(kind=Kind.MISSING)


def instance_label(id: str) -> str:
    """The label of the instance *id*: the id itself, if it can be one; else a digest, which no other id has.

    An id may be 64 characters long and begin with ``-``; a label of a host name may not.
    """
    return id if _LABEL.fullmatch(id) else f"x{hashlib.sha256(id.encode()).hexdigest()[:40]}"


def _below(
    kind: Kind, service: bytes, apex: bytes, *, scheme: str | None = None, instance: str | None = None
) -> Name:
    name = _text(service).lower()
    if not SERVICE_PATTERN.fullmatch(name):
        return Name(kind=Kind.MISSING)
    return Name(kind=kind, service=name, base=(service, apex), scheme=scheme, instance=instance)


def _text(label: bytes) -> str:
    """*label* as text; what is not ASCII becomes something that no pattern of ours matches."""
    return label.decode("ascii", "replace")
