"""What ``disco run`` is to do, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .canary import Threshold
from .doorway import Doorway
from .life import Terms

__all__ = ["Ending", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run, and how. ``record``: what `register` takes of the instance beside service and port."""

    service: str
    instance_id: str
    doorway: Doorway
    registry: str | None
    host: str
    scheme: str = "http"
    record: Mapping[str, Any] = field(default_factory=dict)
    health_path: str | None = None
    health_interval: float = 2.0
    health_timeout: float = 1.0
    health_failures: int = 3
    ttl: float = 15.0
    quiet: float = 1.0
    drain_timeout: float = 20.0
    threshold: Threshold | None = None
    """What ends a trial."""
    full_weight: float = 100
    """Its share once it has stood a trial."""
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The exit code, and why it was not as it should be."""

    code: int
    problem: str = ""
