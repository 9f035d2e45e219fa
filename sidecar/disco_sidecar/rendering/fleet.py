"""What a template gets to see of a service. Pure.

Two things are decided here. *Who may be called*: what the SDK would call, in the same order of preference. And *what an empty
service means*: a fleet that vanished is most likely one that the registry lost, and a file without any server keeps nginx from
starting; so the last instances that there were stay, until there are some again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from discoclient.model.instance import Instance, State
from discoclient.model.snapshot import Snapshot
from discoclient.registry.codec import to_record

__all__ = ["Fleet", "Service", "Target", "select", "word"]

KEEPALIVE = 2.0
"""Seconds that a service keeps idle connections if its record does not say."""
EARLIER = 1.0
"""Seconds before that, at which the caller is to close its own."""
TOP = 256
"""The greatest share: HAProxy's greatest weight. nginx takes any whole number from 1 on."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._:/@+=,-]")


def word(text: object) -> str:
    """*text* with ``_`` for everything that could end a word in a configuration: spaces, quotes, ``;{}#$`` and the like.

    Whoever may register an instance must not be able to write nginx's configuration by way of a version's name.
    """
    return _UNSAFE.sub("_", str(text))


@dataclass(frozen=True, slots=True)
class Target:
    """An instance, for templates: the record's fields, and two more. Free texts are words, see `word`; absent is ``None``.

    ``address``: ``host:port``, with brackets around IPv6. ``share``: its weight as a whole number between 1 and 256, in
    proportion to those of the others in the same list. ``record``: the record as it stands in the registry, not cleaned.
    """

    id: str
    service: str
    scheme: str
    host: str
    port: int
    address: str
    state: str
    weight: float
    share: int
    version: str | None
    zone: str | None
    hostname: str | None
    slot: str
    pid: int | None
    http_keepalive: float | None
    registered_at: str | None
    metadata: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A service, for templates. Each list is ordered by address, and has an address once.

    ``instances``: those to be called. Ready ones with a weight; if there is none, ready ones with a weight of 0; if there
    is none, unready ones. ``standbys``: the others of these, to be called when all ``instances`` fail. ``draining``: not to be
    called.
    """

    name: str
    instances: tuple[Target, ...] = ()
    standbys: tuple[Target, ...] = ()
    draining: tuple[Target, ...] = ()

    @property
    def scheme(self) -> str:
        """``http`` or ``https``, if those that may be called agree; ``http`` if there is none."""
        found = {each.scheme for each in (*self.instances, *self.standbys)}
        if len(found) > 1:
            raise ValueError(f"{self.name} has http and https instances; choose some by their 'scheme'")
        return found.pop() if found else "http"

    @property
    def keepalive(self) -> float:
        """Seconds that idle connections to these may be kept: a second less than the least that one of them promises."""
        promised = (
            KEEPALIVE if each.http_keepalive is None else each.http_keepalive
            for each in (*self.instances, *self.standbys)
        )
        return max(0.0, min(promised, default=KEEPALIVE) - EARLIER)


def select(service: str, instances: Collection[Instance]) -> Service:
    """*instances* as a template sees them."""
    groups: list[dict[str, Instance]] = [{}, {}, {}]
    taken: set[str] = set()
    for each in sorted(instances, key=lambda i: (_rank(i), i.id)):
        if each.state is State.DRAINING or each.address in taken:
            continue
        taken.add(each.address)  # one that crashed there may still stand beside its successor
        groups[_rank(each)][each.address] = each
    wanted = [list(group.values()) for group in groups if group]
    draining = [each for each in instances if each.state is State.DRAINING]
    return Service(
        service,
        _targets(wanted[0] if wanted else []),
        _targets([each for group in wanted[1:] for each in group]),
        _targets(draining),
    )


class Fleet:
    """What is known of the *services*, in their order. An empty one keeps its last instances, unless *allow_empty*."""

    def __init__(self, services: Sequence[str], *, allow_empty: bool) -> None:
        self._services: dict[str, Service | None] = dict.fromkeys(services)
        self._allow_empty = allow_empty
        self._held: set[str] = set()

    @property
    def services(self) -> dict[str, Service]:
        """By name, as a template sees them. Whole only if nothing is ``missing``."""
        return {name: service for name, service in self._services.items() if service is not None}

    @property
    def missing(self) -> list[str]:
        """The services that had no instance ever since we look: nothing can be rendered."""
        return [name for name, service in self._services.items() if service is None]

    @property
    def held(self) -> list[str]:
        """The services that have no instance any more, and whose last ones are kept."""
        return [name for name in self._services if name in self._held]

    def learn(self, snapshot: Snapshot) -> None:
        """The newest state of one of the services."""
        name = snapshot.service
        service = select(name, snapshot.instances)
        before = self._services[name]
        if service.instances or self._allow_empty:
            self._held.discard(name)
            self._services[name] = service
        elif before is not None:
            self._held.add(name)
            self._services[name] = replace(before, draining=service.draining)


def _rank(instance: Instance) -> int:
    if instance.state is State.UNREADY:
        return 2
    return 0 if instance.weight > 0 else 1


def _targets(instances: Sequence[Instance]) -> tuple[Target, ...]:
    shares = _shares([each.weight for each in instances])
    pairs = sorted(zip(instances, shares, strict=True), key=lambda pair: _order(pair[0]))
    return tuple(_target(instance, share) for instance, share in pairs)


def _order(instance: Instance) -> tuple[int, int, str, int, str]:
    """By address, numbers before names: an instance that is registered anew where it was changes nothing."""
    try:
        address = ipaddress.ip_address(instance.host)
    except ValueError:
        return 9, 0, instance.host, instance.port, instance.id
    return address.version, int(address), "", instance.port, instance.id


def _shares(weights: Sequence[float]) -> list[int]:
    """Whole numbers from 1 to `TOP` in proportion to *weights*; as they are, if they are that already."""
    top = max(weights, default=0)
    if not top:
        return [1 for _ in weights]
    scale = 1.0 if top <= TOP and all(float(each).is_integer() for each in weights) else TOP / top
    return [max(1, round(each * scale)) for each in weights]


def _target(instance: Instance, share: int) -> Target:
    def text(value: str | None) -> str | None:
        return None if value is None else word(value)

    return Target(
        id=instance.id,
        service=instance.service,
        scheme=instance.scheme,
        host=instance.host,
        port=instance.port,
        address=instance.address,
        state=str(instance.state),
        weight=instance.weight,
        share=share,
        version=text(instance.version),
        zone=text(instance.zone),
        hostname=text(instance.hostname),
        slot=word(instance.slot),
        pid=instance.pid,
        http_keepalive=instance.http_keepalive,
        registered_at=text(instance.registered_at),
        metadata=_words(instance.metadata),
        record=to_record(instance),
    )


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return word(value)
    if isinstance(value, Mapping):
        return {word(key): _words(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_words(each) for each in value]
    return value
