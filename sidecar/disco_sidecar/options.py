"""The options, and what was said of them: by flags, else in the environment, else in one TOML file.

Each option has one name: ``--allow-host`` is ``DISCO_SIDECAR_ALLOW_HOST`` in the environment (several values with commas) and
``allow_host`` in the file (several values as an array).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discoclient.model.errors import ConfigError

__all__ = ["CONFIG", "OPTIONS", "PREFIX", "Option", "gather"]

PREFIX = "DISCO_SIDECAR_"
CONFIG = PREFIX + "CONFIG"
"""The environment's word for ``--config``."""


@dataclass(frozen=True, slots=True)
class Option:
    """``kind``: str, int, float or bool; ``is_many``: may be said several times. ``default`` is what stands in the help.

    ``variable``: the one that all of discoclient has for it; without it, too, the option is this variable's value.
    """

    name: str
    kind: type
    default: Any
    metavar: str
    help: str
    is_many: bool = False
    variable: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


OPTIONS = (
    Option(
        "registry",
        str,
        None,
        "URL",
        "the registry (default: $DISCO_REGISTRY, else etcd://127.0.0.1:2379)",
        variable="DISCO_REGISTRY",
    ),
    Option(
        "bind",
        str,
        ("127.0.0.1:7500",),
        "ADDR:PORT|unix:PATH",
        "where requests for any service come in, by path, by host, or as to a proxy; off: nowhere (default: 127.0.0.1:7500)",
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
        "the page, metrics and health, to be read only; off: nowhere (default: 127.0.0.1:7501)",
    ),
    Option("dns", str, None, "ADDR:PORT", "answer DNS for <service>.disco. there (default: no DNS)"),
    Option(
        "allow_host", str, (), "NAME", "a name that clients may have for us, in Host and Origin", is_many=True
    ),
    Option("allow_remote", bool, False, "", "admit addresses that other machines can reach"),
    Option("workers", int, 1, "N", "processes (default: 1)"),
    Option("access_log", str, None, "FILE|-", "a JSON object for each request; - is standard output"),
    Option("zone", str, None, "ZONE", "the zone to prefer (default: $DISCO_ZONE)", variable="DISCO_ZONE"),
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


def gather(
    flags: Mapping[str, Any], environ: Mapping[str, str], *, config: str | None = None
) -> dict[str, Any]:
    """The values that were given, by option: from *flags* (texts, and none of those that were not said), else from *environ*,
    else from the file *config*. Raises `ConfigError`.
    """
    values: dict[str, Any] = {}
    config = config or environ.get(CONFIG)
    if config:
        values |= _read_file(config)
    for option in OPTIONS:
        if option.variable and environ.get(option.variable):
            values.pop(
                option.name, None
            )  # the environment's word, which is the default, goes before the file's
        variable = PREFIX + option.name.upper()
        text = environ.get(variable)
        if text:
            parts = text.split(",") if option.is_many else [text]
            values[option.name] = _read_all(option, [part for part in parts if part.strip()], f"${variable}")
        if option.name in flags:
            said = flags[option.name]
            values[option.name] = _read_all(option, said if option.is_many else [said], option.flag)
    return values


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
        found = [_check(option, each, f"--config {path}: {key}") for each in given]
        values[option.name] = tuple(found) if option.is_many else found[0]
    return values


def _read_all(option: Option, texts: Sequence[Any], source: str) -> Any:
    found = tuple(_read(option, text, source) for text in texts)
    return found if option.is_many else found[0]


def _read(option: Option, value: Any, source: str) -> Any:
    """A text, *value*, as *option* has it."""
    value = str(value).strip()
    try:
        return _SWITCH[value.lower()] if option.kind is bool else option.kind(value)
    except (KeyError, ValueError):
        raise _wrong(option, value, source) from None


def _check(option: Option, value: Any, source: str) -> Any:
    """What the file has, *value*, if it is of the kind that *option* is."""
    kind = int if option.kind is float and type(value) is int else option.kind
    if type(value) is not kind:
        raise _wrong(option, value, source)
    return option.kind(value)


def _wrong(option: Option, value: Any, source: str) -> ConfigError:
    wanted = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[option.kind]
    return ConfigError(f"{source} is {wanted}; got {value!r}")


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
