"""The verdict on two observations of the same case: the same, or stricter in the way that is allowed."""

from __future__ import annotations

from dataclasses import fields

from .observing import Answer, Observed, is_right
from .stricter import How, Stricter

__all__ = ["differences", "is_stricter", "verdict"]


def differences(ours: Observed, theirs: Observed) -> list[str]:
    """In words, field by field."""
    found = _between("answer", ours.answer, theirs.answer)
    if ours.is_same != theirs.is_same:
        found.append(f"same connection: ours {ours.is_same}, httpx {theirs.is_same}")
    found += _between("after", ours.after, theirs.after)
    if ours.heard != theirs.heard:
        found.append(f"heard:\n  ours  {_short(ours.heard)}\n  httpx {_short(theirs.heard)}")
    return found


def is_stricter(ours: Observed, theirs: Observed, *, error: str = "RemoteProtocolError") -> How | None:
    """How ours is stricter, if that is all that it is. What follows must get its own answer, whatever httpx does."""
    if not is_right(ours.after) or (ours.is_same and not theirs.is_same) or ours.heard[:1] != theirs.heard[:1]:
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


def verdict(case: str, ours: Observed, theirs: Observed, allowed: Stricter | None) -> list[str]:
    """What is wrong, in words; nothing if all is well."""
    found = differences(ours, theirs)
    if allowed is None:
        if not found and not is_right(ours.after):
            found = [f"what follows does not get its own answer, with httpx neither: {_short(ours.after)}"]
        return found
    if not found:
        return [f"{case!r} stands in stricter.py, and there is no difference"]
    how = is_stricter(ours, theirs, error=allowed.error)
    return [] if how is allowed.how else [f"allowed is {allowed.how.value!r}, this is {how}:", *found]


def _between(name: str, ours: Answer, theirs: Answer) -> list[str]:
    if ours == theirs:
        return []
    found = []
    for each in fields(Answer):
        left, right = getattr(ours, each.name), getattr(theirs, each.name)
        if each.compare and left != right:
            found.append(f"{name}.{each.name}: ours {_short(left)}, httpx {_short(right)}")
    return [*found, f"({name}: ours says {ours.detail or 'nothing'}, httpx says {theirs.detail or 'nothing'})"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:400]} ... {text[-150:]} ({len(text)} characters)"
