"""One made-up response to both sides, and whether what ours did is all right: the same, or stricter in some way."""

from __future__ import annotations

from .comparing import differences, is_stricter
from .engines import OURS, THEIRS, Way
from .messages import Made
from .observing import Ask, Observed, is_right, observe
from .origin import origin

__all__ = ["judge"]


def judge(made: Made, way: Way, *, is_whole: bool, may_be_stricter: bool) -> list[str]:
    """What is wrong, in words. *may_be_stricter*: it is malformed, so that ours may refuse it or give up its connection."""
    what = Ask(
        made.method, content=(lambda is_sync: b"body") if made.method == "POST" else None, is_whole=is_whole
    )

    async def both() -> tuple[Observed, Observed]:
        return await observe(OURS, way, server, what), await observe(THEIRS, way, server, what)

    with origin({"case": made.play()}) as server:
        ours, theirs = way.run(both)
    wrong = [] if is_right(ours.after) else [f"what follows got {ours.after}"]
    found = differences(ours, theirs)
    if not found or (may_be_stricter and is_stricter(ours, theirs) is not None):
        return wrong
    return [f"{way}, read {'whole' if is_whole else 'in parts'}, {made.raw!r}", *wrong, *found]
