"""The wire format: an `Instance` to and from the value of its key. Garbage in is a `BadRecord`, never a crash."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..model.errors import ConfigError, DiscoError
from ..model.instance import ID_PATTERN, SCHEMA_VERSION, SERVICE_PATTERN, Instance, State

__all__ = [
    "MAX_VALUE_BYTES",
    "MAX_WEIGHT",
    "BadRecord",
    "check_host",
    "decode",
    "encode",
    "fit",
    "read_object",
    "to_record",
]

MAX_VALUE_BYTES = 4096
"""A value is at most this long (etcd's own limit for a request is 1.5 MiB)."""

MAX_WEIGHT = 10_000

MAX_DEPTH = 32
"""Lists and objects within each other: what is deeper can't be compared, printed or written again for sure."""
MAX_KEEPALIVE = 86_400.0 * 365
"""Seconds. No server keeps an idle connection for longer than a year, and an integer of 400 digits is no float."""
MAX_PID = 2**31 - 1
"""POSIX's ``pid_t`` is a signed integer, of 32 bits on every system that we run on."""

_METADATA_SERVICES = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")))
"""Where AWS (instances, and pods on EKS) and Google Cloud give out credentials over IPv6: unique local, not link-local."""

_HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?"
)
_KNOWN = frozenset(field.name for field in fields(Instance)) - {"extra"}
_SCHEMES = ("http", "https")


class BadRecord(DiscoError):
    """A value that is not a valid record. The message says why and never holds the value itself."""


def check_host(host: str, *, hostnames: bool) -> str:
    """*host* in its normal form if callers may connect to it; `BadRecord` otherwise.

    Only IP literals, unless *hostnames*. Unspecified, multicast and link-local addresses are refused, and the metadata
    addresses of clouds that are none of these: whoever can write a record must not be able to have callers ask for the
    credentials of their own machine.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if hostnames and _HOSTNAME.fullmatch(host) and not host.replace(".", "").isdigit():
            return host.lower()
        raise BadRecord("host is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise BadRecord("host has an IPv6 scope")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        raise BadRecord("host is an unspecified, multicast or link-local address")
    if address == ipaddress.IPv4Address("255.255.255.255"):
        raise BadRecord("host is the broadcast address")
    if address in _METADATA_SERVICES:
        raise BadRecord("host is a cloud's metadata address")
    return str(address)


def read_object(value: bytes) -> dict[str, Any]:
    """The JSON object in *value*, of our schema's version. Raises `BadRecord`."""
    if len(value) > MAX_VALUE_BYTES:
        raise BadRecord(f"longer than {MAX_VALUE_BYTES} bytes")
    try:
        record = json.loads(value.decode(), parse_constant=_refuse_constant, parse_float=_finite)
        if value.count(b"[") + value.count(b"{") > MAX_DEPTH:
            _refuse_depth(record)
        if b"\\u" in value:
            json.dumps(record, ensure_ascii=False).encode()  # not with half of a surrogate pair
    except (ValueError, RecursionError):
        raise BadRecord("not a JSON value in UTF-8") from None
    if not isinstance(record, dict):
        raise BadRecord("not a JSON object")
    if record.get("v") != SCHEMA_VERSION or isinstance(record["v"], bool):
        raise BadRecord(f"schema version is not {SCHEMA_VERSION}")
    return record


def fit(text: str, limit: int) -> str:
    """As much of *text*, which is only shown, as takes *limit* bytes in a value. What is no text becomes question marks."""
    text = text.encode("utf-8", "replace").decode()
    while len(json.dumps(text, ensure_ascii=False).encode()) > limit:
        text = text[: len(text) * 9 // 10]
    return text


def decode(value: bytes, *, service: str, id: str, hostnames: bool = False) -> Instance:
    """The instance in *value*, which stands at the key of *service* and *id*. Raises `BadRecord`."""
    record = read_object(value)
    if not SERVICE_PATTERN.fullmatch(service) or not ID_PATTERN.fullmatch(id):
        raise BadRecord("key is not <service>/<instance id>")
    if record.get("service") != service or record.get("id") != id:
        raise BadRecord("key and value do not agree")
    scheme = _required(record, "scheme", str)
    if scheme not in _SCHEMES:
        raise BadRecord("scheme is not http or https")
    port = _required(record, "port", int)
    if not 1 <= port <= 65535:
        raise BadRecord("port is out of range")
    state = _required(record, "state", str)
    weight = _optional(record, "weight", (int, float), 100)
    if not 0 <= weight <= MAX_WEIGHT:
        raise BadRecord("weight is out of range")
    keepalive = _optional(record, "http_keepalive", (int, float), None)
    if keepalive is not None and keepalive < 0:
        raise BadRecord("http_keepalive is negative")
    if keepalive is not None and keepalive > MAX_KEEPALIVE:
        raise BadRecord("http_keepalive is longer than a year")
    pid = _optional(record, "pid", (int,), None)
    if pid is not None and not 0 <= pid <= MAX_PID:
        raise BadRecord("pid is out of range")
    return Instance(
        service=service,
        id=id,
        host=check_host(_required(record, "host", str), hostnames=hostnames),
        port=port,
        scheme=scheme,
        state=State(state) if state in State.__members__.values() else State.UNREADY,
        pid=pid,
        hostname=_optional(record, "hostname", (str,), None),
        slot=_optional(record, "slot", (str,), "0"),
        version=_optional(record, "version", (str,), None),
        zone=_optional(record, "zone", (str,), None),
        weight=weight,
        http_keepalive=keepalive,
        metadata=_optional(record, "metadata", (dict,), {}),
        registered_at=_optional(record, "registered_at", (str,), None),
        extra={key: value for key, value in record.items() if key not in _KNOWN},
    )


def to_record(instance: Instance) -> dict[str, Any]:
    """The instance as the JSON object of the wire format; what is absent is left out."""
    record: dict[str, Any] = {
        "v": instance.v,
        "service": instance.service,
        "id": instance.id,
        "scheme": instance.scheme,
        "host": instance.host,
        "port": instance.port,
        "state": str(instance.state),
    }
    for name in ("pid", "hostname", "slot", "version", "zone", "weight", "http_keepalive"):
        value = getattr(instance, name)
        if value is not None:
            record[name] = value
    record["metadata"] = dict(instance.metadata)
    if instance.registered_at is not None:
        record["registered_at"] = instance.registered_at
    return record | dict(instance.extra)


def encode(instance: Instance, *, hostnames: bool = False) -> bytes:
    """The value for the instance's key. Raises `ConfigError` for what no reader would accept."""
    try:
        value = json.dumps(to_record(instance), separators=(",", ":"), allow_nan=False).encode()
        decode(value, service=instance.service, id=instance.id, hostnames=hostnames)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"this instance can't be written as JSON: {error}") from error
    except BadRecord as error:
        raise ConfigError(f"no caller would accept this instance: {error}") from error
    return value


def _required(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRecord(f"{name} is missing or not of the right type")
    return value


def _optional(record: Mapping[str, Any], name: str, kinds: tuple[type, ...], default: Any) -> Any:
    value = record.get(name)
    if value is None:
        return default
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise BadRecord(f"{name} is not of the right type")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number out of range")
    return number


def _refuse_constant(text: str) -> Callable[[], None]:
    raise ValueError(f"{text} is not JSON")


def _refuse_depth(record: Any) -> None:
    layer = [record]
    for _ in range(MAX_DEPTH):
        inner = (value.values() if isinstance(value, dict) else value for value in layer)
        layer = [value for values in inner for value in values if isinstance(value, dict | list)]
    if layer:
        raise BadRecord(f"nested more than {MAX_DEPTH} deep")
