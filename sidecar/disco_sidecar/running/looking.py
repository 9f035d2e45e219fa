"""What there is to look at in one process: the admin address' view of the proxy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..admin.happenings import Happenings, iso
from ..admin.state import Observer
from ..places import Place
from ..proxy.counts import BOUNDS
from ..proxy.gate import Gate
from ..proxy.services import Services
from ..settings import Settings
from .bound import Sockets

__all__ = ["observe", "ways"]


def observe(
    settings: Settings,
    sockets: Sockets,
    services: Services,
    gate: Gate,
    happenings: Happenings,
    unready: Callable[[], list[str]],
) -> Observer:
    began, started_at = time.monotonic(), iso(time.time())
    shown = ways(settings, sockets)

    def facts() -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": started_at,
            "uptime": time.monotonic() - began,
            "workers": settings.workers,
            "registry": str(services.address),
            "ways": shown,
            "connections": len(gate.clients) + len(gate.tunnels),
            "connections_total": gate.total,
            "refused": dict(gate.refused),
            "is_draining": gate.is_draining,
            "unready": unready(),
        }

    return Observer(
        facts=facts, routes=services.routes, counts=services.counts, bounds=BOUNDS, happenings=happenings
    )


def ways(settings: Settings, sockets: Sockets) -> list[dict[str, Any]]:
    """The ways in, with the ports that were really bound."""
    found = []
    for listener in settings.listeners:
        place = listener.place
        for bound in sockets.get(listener, ()):
            name = bound.getsockname()
            if isinstance(name, tuple):
                place = Place(name[0], name[1])
            found.append({"kind": str(listener.kind), "address": str(place), "service": listener.service})
        if listener not in sockets:
            found.append({"kind": str(listener.kind), "address": str(place), "service": listener.service})
    return found
