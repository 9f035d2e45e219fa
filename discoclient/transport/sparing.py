"""What httpx does anew for each request, and need not: through its public doors, for a face that is used many times."""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["SparingCookies", "SparingFace", "UrlMemory"]

MOST_URLS = 512
"""URLs that one client remembers: paths with ids in them would be without end."""


class SparingCookies(httpx.Cookies):
    """httpx's own, but that a response which sets none is not looked through by `http.cookiejar`: that takes 15 us."""

    def extract_cookies(self, response: httpx.Response) -> None:
        if "set-cookie" in response.headers or "set-cookie2" in response.headers:
            super().extract_cookies(response)


class UrlMemory:
    """URLs, and what they are with a client's base URL: to parse and join takes 20 us. Safe to use from many threads."""

    __slots__ = ("_base", "_known")

    def __init__(self) -> None:
        self._base: httpx.URL | None = None
        self._known: dict[str, httpx.URL] = {}

    def find(self, url: httpx.URL | str, base: httpx.URL) -> httpx.URL | None:
        """What *url* was, relative to *base*."""
        if type(url) is not str or base is not self._base:
            return None
        return self._known.get(url)

    def keep(self, url: httpx.URL | str, base: httpx.URL, whole: httpx.URL) -> None:
        """*url* is *whole*, relative to *base*."""
        if type(url) is not str:
            return
        if base is not self._base:  # it was changed, which hardly ever happens
            self._base, self._known = base, {}
        known = self._known
        if len(known) >= MOST_URLS:
            known.pop(next(iter(known)), None)
        known[url] = whole


class SparingFace:
    """To be mixed into `httpx.Client` or `httpx.AsyncClient`, in front."""

    base_url: httpx.URL
    params: httpx.QueryParams

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._urls = UrlMemory()
        self._own_cookies = SparingCookies(super().cookies)  # type: ignore[misc]  # httpx's, which comes next in line

    def build_request(self, method: str, url: httpx.URL | str, **kwargs: Any) -> httpx.Request:
        """As httpx's, which parses a URL anew each time."""
        build = super().build_request  # type: ignore[misc]
        base = self.base_url
        known = self._urls.find(url, base)
        request: httpx.Request = build(method, url if known is None else known, **kwargs)
        if known is None and kwargs.get("params") is None and not self.params:
            self._urls.keep(url, base, request.url)
        return request

    build_request.__wrapped__ = httpx.Client.build_request  # type: ignore[attr-defined]  # whose signature it has

    @property
    def cookies(self) -> httpx.Cookies:
        """As httpx's."""
        return self._own_cookies

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._own_cookies = SparingCookies(cookies)
