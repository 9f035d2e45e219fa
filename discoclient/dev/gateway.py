"""A few questions to one member, through etcd's JSON gateway: starting etcd must not need a client of etcd."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any

from .failures import EtcdRefused
from .tls import TLSFiles

__all__ = ["Gateway", "answers_http"]

# gRPC's codes for "invalid argument", "permission denied" and "unauthenticated": with authentication on, a
# request without a user gets one of these, *after* the member has found out from the others what the newest
# state is.
_DENIED = (3, 7, 16)


def answers_http(port: int, *, timeout: float) -> bool:
    """Whether something on 127.0.0.1:*port* answers to HTTP in plain, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/version")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


class Gateway:
    """One member's JSON gateway at 127.0.0.1:*port*. Each call is a connection, and ignores ``$http_proxy``."""

    def __init__(self, port: int, *, tls: TLSFiles | None = None) -> None:
        self.port = port
        self._tls = tls
        self._context: ssl.SSLContext | None = None

    def call(self, path: str, body: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """POST *body* to *path*, and return the answer. Numbers of 64 bits come as strings.

        *timeout* in seconds bounds every single wait. Raises `OSError` if there is no answer, `EtcdRefused`
        if it is an error.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.sock = self._connect(timeout)
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, text = response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"127.0.0.1:{self.port} did not answer in HTTP: {error!r}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ConnectionError(f"127.0.0.1:{self.port} did not answer in JSON: {status} {text[:80]!r}")
        if status != 200:
            raise EtcdRefused(str(answer.get("error", answer)), code=int(answer.get("code", 2)))
        return answer

    def read_linearizable(self, *, timeout: float) -> int | None:
        """Read nothing, but as of now: answered only by a member that is in touch with a quorum.

        Returns the newest revision, or None if the member wants to know a user first. Raises as `call` does.
        """
        try:
            # The key is one byte 0, in base64: the first of all keys, which nobody uses.
            answer = self.call("/v3/kv/range", {"key": "AA==", "count_only": True}, timeout=timeout)
        except EtcdRefused as error:
            if error.code in _DENIED:
                return None
            raise
        return int(answer["header"]["revision"])

    def _connect(self, timeout: float) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        if self._tls is None:
            return plain
        try:
            if self._context is None:
                self._context = self._tls.client_context()
            return self._context.wrap_socket(plain, server_hostname=self._tls.server_name or "127.0.0.1")
        except BaseException:
            plain.close()
            raise
