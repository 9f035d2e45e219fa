"""One made-up response to both sides, and whether what ours did is all right: the same, or stricter in some way."""

from __future__ import annotations

from .comparing import differences, is_stricter
from .engines import Way
from .messages import Made
from .observing import Answer, Ask, both, is_right
from .origin import origin
from .stricter import How

__all__ = ["judge"]


def judge(made: Made, way: Way, *, is_whole: bool, may_be_stricter: bool) -> list[str]:
    """What is wrong, in words. *may_be_stricter*: it is malformed, so that ours may refuse it or give up its connection."""
    what = Ask(
        made.method, content=(lambda is_sync: b"body") if made.method == "POST" else None, is_whole=is_whole
    )
    with origin({"case": made.play()}) as server:
        ours, theirs = both(way, server, what)
    wrong = [] if is_right(ours.after) else [f"what follows got {ours.after}"]
    found = differences(ours, theirs)
    how = is_stricter(ours, theirs)
    if (
        not found
        or (how is How.KEEPS and _stays(ours.answer))
        or (may_be_stricter and how not in (None, How.KEEPS))
    ):
        return wrong
    return [f"{way}, read {'whole' if is_whole else 'in parts'}, {made.raw!r}", *wrong, *found]


def _stays(answer: Answer) -> bool:
    """Whether it is of HTTP/1.0 and says that its connection stays, which h11 never believes."""
    words = b",".join(value.lower() for name, value in answer.headers if name.lower() == b"connection").split(
        b","
    )
    return (
        answer.version == b"HTTP/1.0"
        and {word.strip() for word in words} >= {b"keep-alive"}
        and b"close" not in b"".join(words)
    )
