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
        target = httpx.URL(location)
    except httpx.InvalidURL:
        return None
    origin = request.url
    if not target.host and not target.scheme:
        if origin.scheme in _PORTS:
            return None
        joined = (
            httpx.URL(f"http://{origin.netloc.decode('ascii')}")
            .join(origin.raw_path.decode("ascii"))
            .join(target)
        )
        return str(joined.copy_with(scheme=origin.scheme))
    if target.scheme not in _PORTS:
        return None
    place = (target.host, target.port or _PORTS[target.scheme])
    names = {origin.host, (host_header or "").partition(":")[0]}
    is_ours = target.host in names or any(
        place == endpoint.address[1:] for endpoint in view.endpoints.values()
    )
    if not is_ours or (target.scheme, target.netloc) == (origin.scheme, origin.netloc):
        return None
    return str(target.copy_with(scheme=origin.scheme, host=origin.host, port=origin.port))
