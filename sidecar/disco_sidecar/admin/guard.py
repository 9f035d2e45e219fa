"""Who may look. PURE: decides from a request's head alone.

A browser lets any page on the internet *send* requests to 127.0.0.1, and DNS rebinding lets it read the answers: its own
name resolves to 127.0.0.1 all of a sudden. Both are told by what the browser writes into the head itself: the name in ``Host``,
and ``Sec-Fetch-Site`` or ``Origin``, which no script can set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from discoclient.model.errors import ConfigError

__all__ = ["METHODS", "Guard", "Head", "Refusal"]

METHODS = ("GET", "HEAD")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_TARGET = re.compile(r"/[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. The names of ``headers`` are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    version: str = "1.1"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def all(self, name: str) -> list[str]:
        """The values of every header called *name*."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no answer."""

    status: int
    reason: str


class Guard:
    """Decides whether a request is answered.

    Args:
        allow_hosts: names that clients may call this address by, besides localhost, 127.0.0.1 and [::1]; without a port.
    """

    def __init__(self, allow_hosts: Iterable[str] = ()) -> None:
        names = {name.strip().lower() for name in allow_hosts}
        for name in names:
            match = _HOST.fullmatch(name)
            if match is None or match[2] is not None:
                raise ConfigError(
                    f"{name!r} is no name of the admin address: give a host name or an IP address, "
                    "an IPv6 address in brackets, and no port"
                )
        self._hosts = LOOPBACK | names

    def refusal(self, head: Head, *, is_unix: bool) -> Refusal | None:
        """Why *head* is not answered; ``None`` if it is.

        Over a Unix socket (*is_unix*) any well-formed ``Host`` will do: no browser and no DNS name leads there, the file's
        permissions say who may connect, and curl wants a name of some kind. The rest holds there too.
        """
        if not head.version.startswith("1."):
            return Refusal(505, "HTTP/1.1 is spoken here")
        if head.method not in METHODS:
            return Refusal(405, "only GET and HEAD: this address is for looking")
        if not _TARGET.fullmatch(head.target) or "#" in head.target:
            return Refusal(400, "the target must be a path")
        if _has_body(head):
            return Refusal(413, "a GET or HEAD has no body here")
        hosts = head.all("host")
        if len(hosts) > 1 or (not hosts and head.version != "1.0"):
            return Refusal(400, "one Host header is needed")
        # HTTP/1.0 without Host is how load balancers probe. Every browser sends one.
        host = hosts[0].lower() if hosts else None
        if host is not None and not self._is_ours(host, is_unix=is_unix):
            return Refusal(421, "this address does not go by that name; see --allow-host")
        return _cross_site(head, host)

    def _is_ours(self, host: str, *, is_unix: bool) -> bool:
        match = _HOST.fullmatch(host)
        return match is not None and (is_unix or match[1] in self._hosts)


def _has_body(head: Head) -> bool:
    return bool(head.all("transfer-encoding")) or any(value != "0" for value in head.all("content-length"))


def _cross_site(head: Head, host: str | None) -> Refusal | None:
    """A link to the page may stand anywhere: who follows it sees the page, and where the link stands sees nothing."""
    is_followed_link = (
        head.path == "/"
        and head.all("sec-fetch-mode") == ["navigate"]
        and head.all("sec-fetch-dest") == ["document"]
    )
    for site in head.all("sec-fetch-site"):
        if site not in ("same-origin", "none") and not is_followed_link:
            return Refusal(403, "a page of another site asked for this")
    for origin in head.all("origin"):
        if host is None or origin.lower() != f"http://{host}":
            return Refusal(403, "a page of another origin asked for this")
    return None
