"""Load by wrk: as many connections as are told, each with one request at a time, as fast as answers come. And a single GET.

wrk keeps its connections, unless the request says ``Connection: close``; then it makes a new one for each. The script lets it
tell its figures as JSON. With ``mix`` it also makes the requests: 200 paths, one after the other, and a header that is never
twice the same.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from discoclient.system.process import end, spawn

from .trouble_proxies import find

__all__ = ["MIX", "Load", "answers", "fetch", "read", "run_wrk"]

MIX = "mix"
"""In the place of a path."""
_PATHS = 200
_TIMEOUT = 10.0
"""Seconds that wrk waits for an answer; afterwards it counts as failed."""

_TELL = """
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "bytes": %.0f, "failed": %d}\\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        summary.bytes, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_MIX = f"""
local heads, number, start = {{}}, 0, 0
init = function(arguments)
    start = math.random(1, 1000000)
    for path = 1, {_PATHS} do
        heads[path] = "GET /users/" .. path .. "?page=" .. path % 7 .. " HTTP/1.1\\r\\nHost: " .. wrk.headers["Host"]
            .. "\\r\\nAccept: application/json\\r\\nX-Request: "
    end
end
request = function()
    number = number + 1
    return heads[number % {_PATHS} + 1] .. start + number .. "\\r\\n\\r\\n"
end
"""


class Load(NamedTuple):
    """What wrk saw."""

    requests: int
    seconds: float
    p50: float
    """Milliseconds, as `p99`; counted from when a request was sent."""
    p99: float
    bytes: float
    failed: int
    """Connections that were not made or broke, answers that were late or not 2xx or 3xx."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def run_wrk(port: int, path: str, *, connections: int, seconds: int, fresh: bool, folder: Path) -> Load:
    """Ask for *path* (or `MIX`) for that long, with one thread. *fresh*: a new connection for each request.

    Raises:
        RuntimeError: wrk is not installed, or said something else than figures.
    """
    program = find("wrk")
    if program is None:
        raise RuntimeError("wrk is not installed")
    script, said = folder / "wrk.lua", folder / "wrk.said"
    script.write_text(_TELL + (_MIX if path == MIX else ""))
    url = f"http://127.0.0.1:{port}{'/' if path == MIX else path}"
    with said.open("wb") as output:
        process = spawn(
            [
                *(program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{_TIMEOUT:g}s"),
                *("-s", str(script), *(("-H", "Connection: close") if fresh else ()), url),
            ],
            stdout=output,
            stderr=output,
            cwd=folder,
            env=os.environ,
        )
    try:
        process.wait(seconds + 2 * _TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"wrk did not end: {said.read_text()}") from None
    finally:
        end(process, grace=0.0)
    return read(said.read_text())


def read(text: str) -> Load:
    """The figures in what wrk said. Raises `RuntimeError` if there are none."""
    for line in text.splitlines():
        if line.startswith('{"requests"'):
            return Load(**json.loads(line))
    raise RuntimeError(f"wrk told no figures: {text}")


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """Whether a GET of *path* is answered with 200; for an empty one, whether somebody listens."""
    try:
        if path:
            return fetch(port, path)[0] == http.HTTPStatus.OK
        socket.create_connection(("127.0.0.1", port), _TIMEOUT).close()
    except (OSError, http.client.HTTPException):
        return False
    return True
