"""The ceiling: what wrk gets out of the same servers from the same core, so that one sees that they are not what limits."""

from __future__ import annotations

from .clients_scene import Scene
from .figures import format_number
from .sidecar_scene import SMALL
from .trouble_proxies import find
from .usage import on_core
from .wrk import run_wrk

__all__ = ["ceiling"]


def ceiling(here: Scene, seconds: int) -> list[str]:
    """A sentence; nothing where wrk or nginx is not installed."""
    if here.front is None or not find("wrk"):
        return []
    rates = []
    for port in (here.ports[0], here.front):
        with on_core(here.core):
            load = run_wrk(port, SMALL, connections=32, seconds=seconds, fresh=False, folder=here.folder)
        rates.append(format_number(load.rate))
    return [
        f"From the same core, wrk gets {rates[0]} requests/s out of one instance, and {rates[1]} through nginx in front."
    ]
