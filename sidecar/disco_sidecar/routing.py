"""Which service does a request mean, and may it be asked for from here? Decided by the head alone; nothing is decoded.

A browser on this machine runs the code of any page that it shows, and that code reaches localhost: under a name of its own
choice (DNS rebinding), or as a request across sites. So a request has to come with a name that is known here, and not from
somebody else's page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from .http.fields import Fields
from .http.reading import Message
from .http.refusal import Refused

__all__ = ["SUFFIX", "Aim", "Way", "admit", "aim", "aim_unusual"]

SUFFIX = b".disco.localhost"
"""``<service>.disco.localhost`` means that service; names under ``localhost`` lead to this machine (RFC 6761, 6.3)."""

_SERVICE = rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATH = re.compile(rb"/(" + _SERVICE + rb")(?=[/?]|\Z)(.*)")
_ABSOLUTE = re.compile(rb"(?i:http)://([^/?#@]+)(.*)")
_NAME = re.compile(_SERVICE)
_ORIGIN = re.compile(rb"https?://([^/?#@]+)")
_LOOPBACK = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How requests come in at one address. ``service``: the one that it stands for; ``None``: each request says which it means.

    ``hosts``: names, in lower case and without a port, under which clients may know us beside those of the loopback.
    """

    service: str | None = None
    hosts: frozenset[bytes] = field(default_factory=frozenset)


class Aim(NamedTuple):
    """Where a request goes: ``target`` and ``host`` as the instance gets them; ``prefix`` is what was taken off the path."""

    service: str
    target: bytes
    host: bytes
    prefix: bytes = b""
    is_proxied: bool = False
    """Whether the client takes us for its proxy, and may mean any host in the world."""


_new = tuple.__new__  # made for each request, and a third of the time that the class itself takes


def admit(fields: Fields, way: Way) -> str | None:
    """Whether a request with these fields may come in this *way*, and the service that its ``Host`` names, if it names one.

    It depends on nothing else, so that it need not be asked again while a client repeats itself. Raises `Refused`.
    """
    if fields.origin is not None or fields.site is not None:
        _check_site(fields, way)
    named = _by_host(_name(fields.host or b""), way)
    return way.service or named


def aim(message: Message, way: Way, named: str | None) -> Aim:
    """*named*: what `admit` has found. Raises `Refused` for what is not ours to forward."""
    target = message.target
    if named is not None:
        return _new(Aim, (named, target, message.fields.host or named.encode(), b"", False))
    path = _PATH.fullmatch(target)
    if path is None:
        raise Refused(
            404,
            "no_service",
            "the first segment of the path is not the name of a service: /<service>/path is what is understood here",
        )
    service, rest = path.groups()
    if rest[:1] != b"/":
        rest = b"/" + rest
    return Aim(service.decode(), rest, service, b"/" + service)


def _by_host(name: bytes, way: Way) -> str | None:
    """The service that a name stands for, if it does. Raises `Refused` for a name that is not known here."""
    if not name or name in _LOOPBACK or name in way.hosts:  # HTTP/1.0 needs none, and no browser speaks it
        return None
    if name.endswith(SUFFIX):
        service = name[: -len(SUFFIX)]
        if _NAME.fullmatch(service) is not None and (way.service is None or way.service.encode() == service):
            return service.decode()
    elif way.service is not None and name == way.service.encode():
        return None
    raise Refused(
        421,
        "unknown_host",
        f"the name {name.decode()!r} is not known here: localhost, 127.0.0.1, [::1] and <service>.disco.localhost are, "
        "and what --allow-host adds",
    )


def aim_unusual(message: Message, way: Way) -> Aim:
    """As `admit` and `aim`, for a target that is not a path (RFC 9112, 3.2). Raises `Refused`."""
    target, fields = message.target, message.fields
    if target == b"*" and message.method == b"OPTIONS" and way.service is not None:
        admit(fields, way)
        return Aim(way.service, target, fields.host or way.service.encode())
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or way.service is not None:
        raise Refused.bad("the request's target is not a path")
    authority, rest = absolute.groups()
    if fields.host is not None and fields.host.lower() != authority.lower():
        raise Refused.bad("the target and the Host field name different hosts")
    name, _, port = authority.lower().partition(b":")
    if name.endswith(SUFFIX):
        name = name[: -len(SUFFIX)]
    elif port not in (b"", b"80"):
        name = b""
    if _NAME.fullmatch(name) is None:
        raise Refused(
            403, "no_open_proxy", "this proxy forwards to registered services only: http://<service>/path"
        )
    if fields.origin is not None or fields.site is not None:
        _check_site(fields, way)
    if rest[:1] != b"/":
        rest = b"/" + rest
    return Aim(name.decode(), rest, name, is_proxied=True)


def _check_site(fields: Fields, way: Way) -> None:
    """Whether a browser sends this for a page of ours. Its ``Origin`` decides, if it names one."""
    if fields.origin is None:
        if fields.site is not None and fields.site.lower() == b"cross-site":
            raise _across("Sec-Fetch-Site: cross-site")
        return
    origin = _ORIGIN.fullmatch(fields.origin.lower())
    if origin is not None:
        if fields.host is not None and origin[1] == fields.host.lower():
            return
        name = _name(origin[1])
        if name in _LOOPBACK or name in way.hosts or name.endswith(SUFFIX):
            return
    raise _across("Origin")


def _across(what: str) -> Refused:
    return Refused(
        403,
        "cross_site",
        f"a browser sends this for a page of another site ({what}); --allow-host admits one by its name",
    )


def _name(host: bytes) -> bytes:
    """A host without its port, in lower case, as names are compared."""
    host = host.lower()
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1]
    return host.partition(b":")[0]
