"""The verdict on two observations of the same case: the same, or stricter in the way that is allowed."""

from __future__ import annotations

import re
from dataclasses import fields, replace

from .observing import Answer, Observed, is_right
from .stricter import How, Stricter

__all__ = ["differences", "is_stricter", "verdict"]


def differences(ours: Observed, theirs: Observed) -> list[str]:
    """In words, field by field."""
    found = _between("answer", _plain(ours.answer), _plain(theirs.answer))
    if ours.is_same != theirs.is_same:
        found.append(f"same connection: ours {ours.is_same}, httpx {theirs.is_same}")
    found += _between("after", ours.after, theirs.after)
    if _heard(ours, theirs) != _heard(theirs, ours):
        found.append(f"heard:\n  ours  {_short(ours.heard)}\n  httpx {_short(theirs.heard)}")
    return found


def is_stricter(ours: Observed, theirs: Observed, *, error: str = "RemoteProtocolError") -> How | None:
    """How ours is stricter, if that is all that it is. What follows must get its own answer, whatever httpx does."""
    ours, theirs = replace(ours, answer=_plain(ours.answer)), replace(theirs, answer=_plain(theirs.answer))
    if replace(ours, heard=()) == replace(theirs, heard=()) and ours.heard == _without_length(theirs.heard):
        return How.FRAMES_ONCE if ours.heard != theirs.heard else None
    if ours.answer == theirs.answer and ours.is_same and not theirs.is_same and is_right(ours.after):
        return How.KEEPS
    if (
        not is_right(ours.after)
        or (ours.is_same and not theirs.is_same)
        or _heard(ours, theirs)[:1] != _heard(theirs, ours)[:1]
    ):
        return None
    if ours.answer == theirs.answer:
        return How.CLOSES if theirs.is_same and not ours.is_same else None
    if ours.answer.error != error or ours.is_same:
        return None
    if not theirs.answer.error:
        return How.REFUSES
    if theirs.answer.error != error:
        return How.CALLS_IT
    return How.GIVES_LESS if theirs.answer.body.startswith(ours.answer.body) else None


def verdict(ours: Observed, theirs: Observed, permit: Stricter | None) -> list[str]:
    """What is wrong, in words; nothing if they are the same, or differ just as *permit* says."""
    found = differences(ours, theirs)
    if not found:
        wrong = f"what follows does not get its own answer, with httpx neither: {_short(ours.after)}"
        return [] if is_right(ours.after) else [wrong]
    if permit is None:
        return found
    how = is_stricter(ours, theirs, error=permit.error)
    return [] if how is permit.how else [f"allowed is {permit.how.value!r}, this is {how}:", *found]


def _without_length(heard: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Requests without the ``Content-Length`` that stands beside chunks."""
    return tuple(
        re.sub(rb"(?i)\r\ncontent-length: \d+(?=\r\n)", b"", request) if b"hunked\r\n" in request else request
        for request in heard
    )


def _plain(answer: Answer) -> Answer:
    """h11 writes this one header's value anew, in small letters; what came is as good."""
    return replace(
        answer,
        headers=tuple(
            (name, value.lower() if name.lower() == b"transfer-encoding" else value)
            for name, value in answer.headers
        ),
    )


def _heard(seen: Observed, other: Observed) -> tuple[bytes, ...]:
    """What is to be compared of it. How much of a request that broke off the server saw is a race: its head, if at all."""
    if not (seen.answer.error and other.answer.error):
        return seen.heard
    heads = tuple(request.partition(b"\r\n\r\n")[0] for request in seen.heard)
    return heads if len(seen.heard) == len(other.heard) else heads[-1:]


def _between(name: str, ours: Answer, theirs: Answer) -> list[str]:
    if ours == theirs:
        return []
    found = []
    for each in fields(Answer):
        left, right = getattr(ours, each.name), getattr(theirs, each.name)
        if each.compare and left != right:
            found.append(f"{name}.{each.name}: ours {_short(left)}, httpx {_short(right)}")
    return [
        *found,
        f"({name}: ours says {ours.detail or 'nothing'}, httpx says {theirs.detail or 'nothing'})",
    ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:400]} ... {text[-150:]} ({len(text)} characters)"
