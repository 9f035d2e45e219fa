"""Redirects: one that leads to an instance of the service leads to the service, as a reverse proxy would have it."""

from __future__ import annotations

import httpx

from ..balancing.view import View

__all__ = ["logical_location"]

_PORTS = {"http": 80, "https": 443}


def logical_location(
    location: str, request: httpx.Request, view: View, *, host_header: str | None
) -> str | None:
    """What ``Location`` should say in the place of *location*; ``None`` to leave it.

    An address of one of the service's instances, or the name that the service was called by, becomes the request's own
    origin: so the next hop goes through the balancer again. Under ``disco://`` a relative location is made absolute,
    because httpx does not resolve one against a scheme that it does not know.
    """
    try:
        return _logical(location, request.url, view, host_header)
    except (httpx.InvalidURL, ValueError):  # or a host that is none: what is made of it is httpx's affair
        return None


def _logical(location: str, origin: httpx.URL, view: View, host_header: str | None) -> str | None:
    target = httpx.URL(location)
    is_relative = target.is_relative_url  # which also `//host/path` is
    if is_relative:
        target = (origin if origin.scheme in _PORTS else origin.copy_with(scheme="http")).join(target)
    if target.scheme not in _PORTS:
        return None
    place = (target.host, target.port or _PORTS[target.scheme])
    names = {origin.host, (host_header or "").partition(":")[0].lower()}
    is_ours = target.host in names or any(
        place == endpoint.address[1:] for endpoint in view.endpoints.values()
    )
    if is_ours and (target.scheme, target.netloc) != (origin.scheme, origin.netloc):
        return str(target.copy_with(scheme=origin.scheme, host=origin.host, port=origin.port))
    if is_relative and origin.scheme not in _PORTS:
        return str(target.copy_with(scheme=origin.scheme))
    return None
