"""What is said once for all commands: the registry, and how much to log."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass

from ..control.hub import find_address
from ..model.errors import ConfigError
from ..registry.address import RegistryAddress

__all__ = ["Session", "set_up_logging"]

_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Session:
    """``disco``'s own options."""

    registry: str | None = None
    """The URL after ``--registry``, if there is one."""

    @property
    def address(self) -> RegistryAddress:
        """The registry to use. Raises `ConfigError`, which says where the wrong one stands."""
        try:
            address = find_address(self.registry)
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {error}") from error
        if address.scheme == "memory":
            raise ConfigError(
                f"{self.source}: memory:// lives within one process, and this is another one; use etcd:// or static://"
            )
        return address

    @property
    def source(self) -> str:
        """Where the registry's address comes from."""
        if self.registry:
            return "--registry"
        return "$DISCO_REGISTRY" if os.environ.get("DISCO_REGISTRY") else "the default"


def set_up_logging() -> None:
    """Log what discoclient says from ``$DISCO_LOG`` on (default: ``error``) to standard error. Raises `ConfigError`."""
    level = os.environ.get("DISCO_LOG", "").lower() or "error"
    if level not in _LEVELS:
        raise ConfigError(f"$DISCO_LOG is one of {', '.join(_LEVELS)}; got {level!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("discoclient")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
