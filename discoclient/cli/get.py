"""``disco get SERVICE PATH``: one request through the SDK."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import httpx
import typer

from ..client import DiscoClient
from ..model.errors import ConfigError
from ..model.policy import check_seconds
from ..transport.options import Routed
from .ages import duration_text
from .errors import FAILED
from .output import emit_bytes, remark
from .session import Session

__all__ = ["get", "parse_header"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def get(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path and query, such as '/users/1?full=1'.")],
    method: Annotated[
        str | None,
        typer.Option("-X", "--method", metavar="METHOD", help="Default: GET, or POST if there is --data."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("-H", "--header", metavar="'NAME: VALUE'", help="A request header. Can be repeated."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "-d", "--data", metavar="TEXT", help="The body; @FILE is a file's content, @- standard input's."
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="To find the service, to connect, and for each part of the answer.",
        ),
    ] = 5.0,
    include: Annotated[
        bool, typer.Option("-i", "--include", help="Print status line and headers before the body.")
    ] = False,
) -> int:
    """One request to a live instance of SERVICE, as DiscoClient makes it: the same choice, the same retries.

    The body goes to standard output as it was sent. Who answered goes to standard error. Redirects are shown, not followed.

    \b
    Examples:
      disco get experiment /users/1
      disco get experiment /users -d '{"name": "ada"}' -H 'Content-Type: application/json'
      disco get experiment / -i

    \b
    Exit codes:
      0  the status is below 400
      1  it is 400 or above, or the request failed, or the service has no instance to call
      2  wrong usage
      4  the registry could not be reached
    """
    session: Session = ctx.obj
    session.address  # noqa: B018 - checked here, where the error can say where a wrong one stands
    if not path.startswith("/"):
        raise ConfigError(f"PATH begins with '/', such as '/{path}'; got {path!r}")
    content = None if data is None else _read(data)
    # Compression is not asked for, so that the body can be shown as it was sent.
    headers = [("Accept-Encoding", "identity"), *map(parse_header, header or ())]
    timeout = check_seconds("--timeout", timeout)
    with DiscoClient(
        service, registry=session.registry, timeout=timeout, discovery_timeout=timeout
    ) as client:
        # An absolute URL: a path that begins with '//' would name another host.
        url = _url(service, path)
        request = client.build_request(
            method or ("GET" if content is None else "POST"), url, headers=headers, content=content
        )
        began = monotonic()
        response = client.send(request, stream=True)
        try:
            _tell(response, monotonic() - began)
            _show(response, include=include)
        finally:
            response.close()
    return 0 if response.status_code < 400 else FAILED


def parse_header(text: str) -> tuple[str, str]:
    """``Name: value`` as a pair. Raises `ConfigError`."""
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name):
        raise ConfigError(f"a header is written 'Name: value'; got {text!r}")
    return name, value.strip()


def _url(service: str, path: str) -> httpx.URL:
    try:
        return httpx.URL(f"http://{service}{path}")
    except httpx.InvalidURL as error:
        raise ConfigError(f"PATH can't be part of a URL: {error}") from error


def _read(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode()
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read the body from {data[1:]!r}: {error.strerror}") from error


def _tell(response: httpx.Response, seconds: float) -> None:
    routed: Routed = response.extensions["disco"]
    remark(
        f"{response.status_code} from {routed.instance.id} at {routed.instance.address}, attempt {routed.attempts}, "
        f"revision {routed.revision}, {duration_text(seconds)}",
        prefix="",
    )


def _show(response: httpx.Response, *, include: bool) -> None:
    if include:
        status = f"{response.http_version} {response.status_code} {response.reason_phrase}".rstrip()
        emit_bytes(status.encode() + b"\r\n")
        for name, value in response.headers.raw:
            emit_bytes(name + b": " + value + b"\r\n")
        emit_bytes(b"\r\n")
    last = b"\n"
    for chunk in response.iter_raw():
        emit_bytes(chunk)
        last = chunk[-1:] or last
    if last != b"\n" and sys.stdout.isatty():
        emit_bytes(b"\n")  # for the shell's prompt; what is piped stays as it was sent
