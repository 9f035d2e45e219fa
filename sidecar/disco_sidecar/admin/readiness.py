"""Is the sidecar of use now, and if not, why? PURE."""

from __future__ import annotations

from typing import Any

__all__ = ["unready"]


def unready(state: dict[str, Any]) -> list[str]:
    """The reasons why not; empty if it is ready.

    It is not while it drains, and not while nothing is known of a service that a way in was opened for. Old knowledge is
    knowledge: a registry that is away makes nobody unready. A service that was merely asked for by path doesn't count:
    anybody could ask for one that does not exist. ``state["sidecar"]["unready"]`` (a list of texts) adds to it.
    """
    sidecar = state["sidecar"]
    reasons = ["draining: it takes no new connections"] if sidecar["is_draining"] else []
    reasons += [str(reason) for reason in sidecar.get("unready", ())]
    promised = {way["service"] for way in sidecar["ways"] if way["service"] is not None}
    known = {each["service"]: each for each in state["services"]}
    for service in sorted(promised):
        found = known.get(service)
        if found is None or not found["is_known"]:
            problem = found and found.get("problem")
            reasons.append(str(problem) if problem else f"nothing is known of service {service!r} yet")
    return reasons
