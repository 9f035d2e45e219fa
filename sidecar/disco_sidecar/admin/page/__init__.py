"""The page: one file, read once. What it may do is said by a policy made from its own text."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

__all__ = ["content_policy", "page"]


@cache
def page() -> bytes:
    """The HTML. Nothing is ever put into it: what there is to show comes by script, as text."""
    return (files(__package__) / "index.html").read_bytes()


@cache
def content_policy() -> str:
    """Nothing from anywhere, but the one script and the one style that stand in the page, and the data from this address.

    No script may make markup from text either (Trusted Types, in browsers that know them).
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes('script')}",
            f"style-src {_hashes('style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _hashes(tag: str) -> str:
    inside = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), page(), re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(each).digest()).decode()}'" for each in inside)
