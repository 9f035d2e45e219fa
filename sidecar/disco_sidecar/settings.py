"""What the sidecar was told, checked and in one place: from flags, the environment and one TOML file, in this order.

Each option has one name: ``--allow-host`` is ``DISCO_SIDECAR_ALLOW_HOST`` in the environment (several values with commas) and
``allow_host`` in the file (several values as an array).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discoclient.model.errors import ConfigError
from discoclient.registry.address import RegistryAddress

from .http.reading import Limits
from .places import Kind, Listener, parse_listener, parse_place
from .proxy.gate import Policy

__all__ = ["OPTIONS", "Option", "Settings", "gather"]

PREFIX = "DISCO_SIDECAR_"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Option:
    """``kind``: str, int, float or bool; ``is_many``: may be said several times. ``default`` is what stands in the help."""

    name: str
    kind: type
    default: Any
    metavar: str
    help: str
    is_many: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


OPTIONS = (
    Option(
        "registry", str, None, "URL", "the registry (default: $DISCO_REGISTRY, else etcd://127.0.0.1:2379)"
    ),
    Option(
        "bind",
        str,
        ("127.0.0.1:7500",),
        "ADDR:PORT|unix:PATH",
        "where requests for any service come in, by path, by host, or as to a proxy (default: 127.0.0.1:7500)",
        is_many=True,
    ),
    Option(
        "listen", str, (), "PORT=SERVICE", "an address that stands for one service, by HTTP", is_many=True
    ),
    Option(
        "tcp",
        str,
        (),
        "PORT=SERVICE",
        "an address that stands for one service, whatever it speaks",
        is_many=True,
    ),
    Option(
        "admin",
        str,
        "127.0.0.1:7501",
        "ADDR:PORT|unix:PATH",
        "the page, metrics and health, to be read only (default: 127.0.0.1:7501)",
    ),
    Option("dns", str, None, "ADDR:PORT", "answer DNS for <service>.disco. there (default: no DNS)"),
    Option(
        "allow_host", str, (), "NAME", "a name that clients may have for us, in Host and Origin", is_many=True
    ),
    Option("allow_remote", bool, False, "", "admit addresses that other machines can reach"),
    Option("workers", int, 1, "N", "processes (default: 1)"),
    Option("access_log", str, None, "FILE|-", "a JSON object for each request; - is standard output"),
    Option("zone", str, None, "ZONE", "the zone to prefer (default: $DISCO_ZONE)"),
    Option("balancer", str, "peak_ewma", "NAME", "how instances are chosen (default: peak_ewma)"),
    Option("ca", str, None, "FILE", "authorities for instances with TLS (default: the system's)"),
    Option("header_timeout", float, 5.0, "S", "seconds for a request's head (default: 5)"),
    Option("idle_timeout", float, 30.0, "S", "seconds between two requests of a client (default: 30)"),
    Option(
        "read_timeout", float, 60.0, "S", "seconds without a byte while a request is under way (default: 60)"
    ),
    Option("connect_timeout", float, 1.0, "S", "seconds to connect to an instance (default: 1)"),
    Option("discovery_timeout", float, 2.0, "S", "seconds for the first knowledge of a service (default: 2)"),
    Option("drain_timeout", float, 30.0, "S", "seconds to finish what is under way at the end (default: 30)"),
    Option("max_connections", int, 4096, "N", "connections of clients (default: 4096)"),
    Option(
        "max_body", int, 0, "BYTES", "the largest body that is taken; 0: as large as it likes (default: 0)"
    ),
    Option(
        "replay", int, 65536, "BYTES", "bodies up to this size are kept for another attempt (default: 65536)"
    ),
)
_BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``hosts``: names that clients may have for us, in lower case."""

    registry: str | None
    listeners: tuple[Listener, ...]
    hosts: frozenset[bytes]
    allow_remote: bool
    workers: int
    access_log: str | None
    drain_timeout: float
    policy: Policy
    zone: str | None
    balancer: str
    connect_timeout: float
    discovery_timeout: float

    @property
    def admin(self) -> Listener | None:
        return next((each for each in self.listeners if each.kind is Kind.ADMIN), None)

    @property
    def remote(self) -> tuple[Listener, ...]:
        """Those that other machines can reach."""
        return tuple(each for each in self.listeners if not each.place.is_local)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """From *values* by option. Raises `ConfigError`."""
        said = {option.name: option.default for option in OPTIONS} | dict(values)
        listeners = [Listener(Kind.BIND, parse_place(text, "--bind")) for text in said["bind"]]
        listeners += [parse_listener(Kind.LISTEN, text) for text in said["listen"]]
        listeners += [parse_listener(Kind.TCP, text) for text in said["tcp"]]
        if said["admin"] and said["admin"] != "off":
            listeners.append(Listener(Kind.ADMIN, parse_place(said["admin"], "--admin")))
        if said["dns"]:
            listeners.append(Listener(Kind.DNS, parse_place(said["dns"], "--dns")))
        _check_places(listeners)
        if said["registry"]:
            try:
                address = RegistryAddress.parse(said["registry"])
            except ConfigError as error:
                raise ConfigError(f"--registry: {error}") from error
            if address.scheme == "memory":
                raise ConfigError("--registry: memory:// lives within one process, and this is another one")
        for name in (
            "header_timeout",
            "idle_timeout",
            "read_timeout",
            "connect_timeout",
            "discovery_timeout",
        ):
            _check(said, name, said[name] > 0, "more than 0 seconds")
        _check(said, "drain_timeout", said["drain_timeout"] >= 0, "0 seconds or more")
        _check(said, "workers", 1 <= said["workers"] <= 64, "from 1 to 64")
        if said["workers"] > 1 and any(each.place.path is None and not each.place.port for each in listeners):
            raise ConfigError(
                "--workers: several processes can't share a port that is chosen when they start (port 0)"
            )
        _check(said, "max_connections", said["max_connections"] >= 1, "1 or more")
        _check(said, "max_body", said["max_body"] >= 0, "0 bytes (no limit) or more")
        _check(said, "replay", said["replay"] >= 0, "0 bytes or more")
        if said["ca"] and not Path(said["ca"]).is_file():
            raise ConfigError(f"--ca: there is no file {said['ca']}")
        settings = cls(
            registry=said["registry"],
            listeners=tuple(listeners),
            hosts=frozenset(_host(name) for name in said["allow_host"]),
            allow_remote=said["allow_remote"],
            workers=said["workers"],
            access_log=said["access_log"],
            drain_timeout=said["drain_timeout"],
            policy=Policy(
                limits=Limits(body=said["max_body"] or None),
                header_timeout=said["header_timeout"],
                idle_timeout=said["idle_timeout"],
                read_timeout=said["read_timeout"],
                max_connections=said["max_connections"],
                replay=said["replay"],
                ca=said["ca"],
            ),
            zone=said["zone"],
            balancer=said["balancer"],
            connect_timeout=said["connect_timeout"],
            discovery_timeout=said["discovery_timeout"],
        )
        if settings.remote and not settings.allow_remote:
            raise ConfigError(
                f"{settings.remote[0]}: other machines can reach that address; the sidecar is for this machine alone "
                "unless --allow-remote is given"
            )
        return settings


def gather(
    flags: Mapping[str, Any], environ: Mapping[str, str], *, config: str | None = None
) -> dict[str, Any]:
    """The values that were given, by option: from *flags* (without those that were not said), else from *environ*, else from
    the file *config*. Raises `ConfigError`.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values |= _read_file(config)
    for option in OPTIONS:
        text = environ.get(PREFIX + option.name.upper())
        if text:
            source = f"${PREFIX}{option.name.upper()}"
            parts: Sequence[str] = text.split(",") if option.is_many else (text,)
            found = [_read(option, part.strip(), source) for part in parts if part.strip()]
            values[option.name] = tuple(found) if option.is_many else found[0]
    return values | dict(flags)


def _read_file(path: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    values: dict[str, Any] = {}
    for key, value in table.items():
        option = _BY_NAME.get(key.replace("-", "_"))
        if option is None:
            names = ", ".join(sorted(_BY_NAME))
            raise ConfigError(f"--config {path}: there is no option {key!r}; the options are {names}")
        given = value if option.is_many and isinstance(value, list) else [value]
        found = [_read(option, each, f"--config {path}: {key}") for each in given]
        values[option.name] = tuple(found) if option.is_many else found[0]
    return values


def _read(option: Option, value: Any, source: str) -> Any:
    """*value* as *option* has it: a text from the environment, or what the file has."""
    kind, wanted = (
        option.kind,
        {str: "a text", int: "a whole number", float: "a number", bool: "true or false"},
    )
    if kind is bool and isinstance(value, str) and value.lower() in _SWITCH:
        return _SWITCH[value.lower()]
    if isinstance(value, bool) is not (kind is bool):
        raise ConfigError(f"{source} is {wanted[kind]}; got {value!r}")
    if isinstance(value, kind) or (kind is float and isinstance(value, int)):
        return kind(value)
    if isinstance(value, str) and kind is not bool:
        try:
            return kind(value)
        except ValueError:
            pass
    raise ConfigError(f"{source} is {wanted[kind]}; got {value!r}")


_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _check(said: Mapping[str, Any], name: str, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ConfigError(f"{_BY_NAME[name].flag} must be {wanted}; got {said[name]:g}")


def _check_places(listeners: Sequence[Listener]) -> None:
    for number, listener in enumerate(listeners):
        if listener.kind is Kind.DNS and listener.place.path is not None:
            raise ConfigError("--dns takes ADDR:PORT, not a Unix socket")
        for other in listeners[:number]:
            if listener.place.overlaps(other.place):
                raise ConfigError(f"{other} and {listener} are the same address")


def _host(name: str) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"--allow-host takes a host's name without a port, such as app.example.com; got {name!r}"
        )
    return name.lower().encode()
