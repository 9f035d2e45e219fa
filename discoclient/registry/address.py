"""The registry's address: one URL, like a database URL."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from ..model.errors import ConfigError
from ..model.instance import Instance, check_service
from .codec import BadRecord, check_host
from .keys import DEFAULT_PREFIX, Keys
from .static import fixed_instance

__all__ = ["DEFAULT_REGISTRY", "RegistryAddress", "parse_override"]

DEFAULT_REGISTRY = "etcd://127.0.0.1:2379"

_FORMS = "etcd://host:port[,host:port...][/prefix], etcds://..., memory://name, or static://service=host:port[,host:port...]"
_OPTIONS = {
    "etcd": ("hostnames", "presence", "share"),
    "etcds": ("ca", "cert", "key", "server_name", "hostnames", "presence", "share"),
    "memory": ("hostnames", "presence"),
    "static": (),
}
_SWITCHES = ("hostnames", "presence", "share")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_NAME = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAddress:
    """A parsed registry URL. Its ``repr`` and `str` hold no password."""

    scheme: str
    members: tuple[tuple[str, int], ...] = ()
    prefix: str = DEFAULT_PREFIX
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = ""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    hostnames: bool = False
    presence: bool = True
    """Whether callers say in the registry that they are there; see `registry.presence`."""
    share: bool = False
    """Whether the processes of one user on one host watch together; see `registry.sharing`."""
    static: tuple[Instance, ...] = ()

    @property
    def keys(self) -> Keys:
        return Keys(self.prefix)

    @property
    def services(self) -> Mapping[str, list[Instance]]:
        """The fixed instances of a ``static://`` address, by service."""
        table: dict[str, list[Instance]] = {}
        for instance in self.static:
            table.setdefault(instance.service, []).append(instance)
        return table

    def __str__(self) -> str:
        """The address as a person reads it, without user and password."""
        if self.scheme == "memory":
            return f"memory://{self.name}"
        if self.scheme == "static":
            parts = (
                f"{service}={','.join(i.address for i in found)}" for service, found in self.services.items()
            )
            return "static://" + ";".join(parts)
        members = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.members
        )
        return f"{self.scheme}://{members}{self.prefix if self.prefix != DEFAULT_PREFIX else ''}"

    @classmethod
    def parse(cls, url: str) -> RegistryAddress:
        """The address in *url*. Raises `ConfigError`, which names the valid forms and never repeats a password."""
        scheme, separator, rest = url.strip().partition("://") if isinstance(url, str) else ("", "", "")
        if not separator or scheme not in _OPTIONS:
            raise ConfigError(f"not a registry URL; the forms are {_FORMS}")
        if scheme == "static":
            return cls(scheme=scheme, static=tuple(_parse_static(rest)))
        # Not urlsplit: its errors repeat the password, and it refuses an IPv6 address that is not the first of several.
        rest, sharp, _ = rest.partition("#")
        rest, _, query = rest.partition("?")
        netloc, slash, path = rest.partition("/")
        if sharp or "@" in path or ("@" in query and "@" not in netloc):
            raise ConfigError(
                "a registry URL has no '#' part, and '/', '?' and '#' in a password are %2F, %3F and %23"
            )
        options = _parse_options(scheme, query)
        prefix = f"{slash}{path}".rstrip("/") or DEFAULT_PREFIX
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"{prefix!r} is not a key prefix: '/' and names of A-Z a-z 0-9 . _ ~ -")
        if scheme == "memory":
            if not _NAME.fullmatch(netloc):
                raise ConfigError("the name in memory://name may hold A-Z a-z 0-9 . _ -")
            return cls(scheme=scheme, name=netloc, prefix=prefix, **options)
        credentials, at, hosts = netloc.rpartition("@")
        user, colon, password = credentials.partition(":")
        if at and not (user and colon):
            raise ConfigError("a user in a registry URL needs a password: etcd://user:password@host:port")
        if (options.get("cert") and not options.get("key")) or (
            options.get("key") and not options.get("cert")
        ):
            raise ConfigError("cert= and key= belong together: give both files or neither")
        return cls(
            scheme=scheme,
            members=tuple(_parse_member(member, default_port=2379) for member in hosts.split(",")),
            prefix=prefix,
            user=unquote(user) or None,
            password=unquote(password) if at else None,
            **options,
        )


def parse_override(service: str, url: str) -> Instance:
    """The fixed instance that ``$DISCO_OVERRIDE_<SERVICE>=http://host:port`` sends a service to."""
    variable = f"DISCO_OVERRIDE_{service.upper().replace('-', '_')}"
    match = re.fullmatch(r"(https?)://([^/?#]+)/?", url.strip())
    if match is None:
        raise ConfigError(f"${variable} must be http://host:port or https://host:port")
    scheme, member = match.groups()
    host, port = _parse_member(member, default_port=443 if scheme == "https" else 80, where=f"${variable}")
    return fixed_instance(service, scheme=scheme, host=_check_fixed(host), port=port)


def _parse_options(scheme: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS[scheme]:
            raise ConfigError(
                f"unknown option {name!r} for {scheme}://; the options are {', '.join(_OPTIONS[scheme])}"
            )
        if name in _SWITCHES and value not in ("0", "1"):
            raise ConfigError(f"{name}= must be 0 or 1")
        if not value:
            raise ConfigError(f"option {name}= is empty")
        options[name] = value == "1" if name in _SWITCHES else value
    return options


def _parse_member(text: str, *, default_port: int, where: str = "the registry URL") -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\s]+))(?::([0-9]{1,5}))?", text)
    port = int(match[3] or default_port) if match else 0
    if match is None or not 1 <= port <= 65535 or (match[1] and not _is_ipv6(match[1])):
        raise ConfigError(
            f"{where} needs host:port (an IPv6 address in brackets), several separated by commas"
        )
    return match[1] or match[2], port


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def _parse_static(text: str) -> list[Instance]:
    found: list[Instance] = []
    for part in filter(None, text.rstrip("/").split(";")):
        service, separator, addresses = part.partition("=")
        if not separator or not addresses:
            raise ConfigError(
                "a static registry is written static://service=host:port[,host:port...][;service=...]"
            )
        for address in addresses.split(","):
            host, port = _parse_member(address, default_port=80)
            found.append(
                fixed_instance(check_service(service), scheme="http", host=_check_fixed(host), port=port)
            )
    if not found:
        raise ConfigError("static:// names no service; write static://service=host:port")
    return found


def _check_fixed(host: str) -> str:
    try:
        return check_host(host, hostnames=True)
    except BadRecord as error:
        raise ConfigError(f"{host!r} can't be called: {error}") from error
