"""Everything that is not the service: what a `DiscoClient` sends to other hosts goes the way it would in httpx."""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["AsyncOutside", "Outside"]


class Outside(httpx.BaseTransport):
    """A plain httpx client, proxies of the environment included, that is only made when it is needed.

    Making one costs 20 ms for its TLS context, and most `DiscoClient`\\ s never call another host.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._client: httpx.Client | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._client is None:
            self._client = httpx.Client(**self._options)
        return self._client.send(request, stream=True, auth=None, follow_redirects=False)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class AsyncOutside(httpx.AsyncBaseTransport):
    """The async twin of `Outside`."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._client: httpx.AsyncClient | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._client is None:
            self._client = httpx.AsyncClient(**self._options)
        return await self._client.send(request, stream=True, auth=None, follow_redirects=False)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
