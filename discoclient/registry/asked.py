"""The wire format of what is asked of an instance, at its control key: to retire, or to have another weight."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..model.instance import SCHEMA_VERSION
from .codec import MAX_WEIGHT, BadRecord, fit, read_object

__all__ = ["Asked", "Retirement", "decode_asked", "encode_asked"]

MAX_WORDS = 1500
"""Bytes of a reason, and of who asks: what is too long would be read by nobody, and waited for in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """Why an instance was asked to retire, and by whom; both in the asker's words, to be shown."""

    reason: str = ""
    by: str = ""

    def __str__(self) -> str:
        return f"{self.reason or 'no reason given'}{f' (asked by {self.by})' if self.by else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of one instance. ``None``: nothing."""

    retire: Retirement | None = None
    weight: float | None = None


def encode_asked(asked: Asked) -> bytes:
    record: dict[str, Any] = {"v": SCHEMA_VERSION}
    if asked.retire is not None:
        said = {"reason": asked.retire.reason, "by": asked.retire.by}
        record["retire"] = {name: fit(text, MAX_WORDS) for name, text in said.items()}
    if asked.weight is not None:
        record["weight"] = asked.weight
    return json.dumps(record, ensure_ascii=False).encode()


def decode_asked(value: bytes) -> Asked:
    """What *value* asks for. Raises `BadRecord`, and then nothing of it is to be done."""
    record = read_object(value)
    retire, weight = record.get("retire"), record.get("weight")
    if weight is not None and (
        not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= MAX_WEIGHT
    ):
        raise BadRecord(f"weight is not a number from 0 to {MAX_WEIGHT}")
    if retire is not None and not isinstance(retire, dict):
        raise BadRecord("retire is not an object")
    return Asked(retire=None if retire is None else _retirement(retire), weight=weight)


def _retirement(record: dict[str, Any]) -> Retirement:
    said = {name: record.get(name) for name in ("reason", "by")}
    return Retirement(**{name: text for name, text in said.items() if isinstance(text, str)})
