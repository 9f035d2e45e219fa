"""Where the files of a TLS cluster are, for both ends of a connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

__all__ = ["TLSFiles"]


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files. With a client certificate etcd demands one of every client (``--client-cert-auth``).

    etcd's JSON gateway, which is what we ask whether a member is healthy, is itself a client of the member
    and shows the *server's* certificate there: with client certificates the server's needs both extended key
    usages.
    """

    ca: Path
    cert: Path
    key: Path
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    """The name in the server's certificate, if it is not valid for 127.0.0.1."""

    def __post_init__(self) -> None:
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert and client_key go together: give both or neither")

    @property
    def query(self) -> str:
        """The options of an ``etcds://`` address, as after its ``?``."""
        options = {"ca": str(self.ca)}
        if self.client_cert is not None and self.client_key is not None:
            options |= {"cert": str(self.client_cert), "key": str(self.client_key)}
        if self.server_name is not None:
            options["server_name"] = self.server_name
        return urlencode(options, safe="/")

    def client_context(self) -> ssl.SSLContext:
        """A context for a client of the cluster."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.client_cert is not None and self.client_key is not None:
            context.load_cert_chain(str(self.client_cert), str(self.client_key))
        return context

    def etcd_flags(self) -> list[str]:
        """What ``etcd`` is told. Members talk to each other in plain: they never leave this machine."""
        flags = [f"--cert-file={self.cert}", f"--key-file={self.key}"]
        if self.client_cert is not None:
            # The authority alone would do: naming one makes etcd demand certificates of clients.
            flags += [f"--trusted-ca-file={self.ca}", "--client-cert-auth"]
        return flags

    def etcdctl_flags(self) -> list[str]:
        """What ``etcdctl`` is told."""
        flags = [f"--cacert={self.ca}"]
        if self.client_cert is not None:
            flags += [f"--cert={self.client_cert}", f"--key={self.client_key}"]
        return flags
