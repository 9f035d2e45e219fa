"""The clients' fixtures, without the one that has ``--engine`` decide: which engine carries what is said here in every test."""

from __future__ import annotations

from tests.client.conftest import fleet, handle, no_proxies, registry, servers, shell

__all__ = ["fleet", "handle", "no_proxies", "registry", "servers", "shell"]
