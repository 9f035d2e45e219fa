"""The layout of the keys: ``<prefix>/services/<service>/<instance id>``, and ``control`` and ``clients`` beside."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_PREFIX", "Keys"]

DEFAULT_PREFIX = "/disco/v1"


@dataclass(frozen=True, slots=True)
class Keys:
    """Where things stand under a prefix. What ends in ``/`` is a range (every key below it), all else is one key."""

    prefix: str = DEFAULT_PREFIX

    @property
    def all_services(self) -> str:
        return f"{self.prefix}/services/"

    def service(self, service: str) -> str:
        return f"{self.prefix}/services/{service}/"

    def instance(self, service: str, instance: str) -> str:
        return f"{self.prefix}/services/{service}/{instance}"

    def clients(self, service: str) -> str:
        return f"{self.prefix}/clients/{service}/"

    def client(self, service: str, client: str) -> str:
        return f"{self.prefix}/clients/{service}/{client}"

    def controls(self, service: str) -> str:
        return f"{self.prefix}/control/{service}/"

    def control(self, service: str, instance: str) -> str:
        return f"{self.prefix}/control/{service}/{instance}"
