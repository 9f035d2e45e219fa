"""The command ``disco-sidecar``, also ``python -m disco_sidecar``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__

__all__ = ["main"]

WHAT_IT_WILL_BE = (
    "a small process on localhost for clients that can't use the discoclient SDK: it watches the registry and "
    "passes their requests on to live instances."
)
NOT_THERE_YET = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer ``--help`` and ``--version``; otherwise say that the sidecar isn't there yet."""
    parser = argparse.ArgumentParser(
        prog="disco-sidecar",
        description=f"The discoclient sidecar will be {WHAT_IT_WILL_BE}",
        epilog="It isn't there yet: without an option this command says so and exits 2.",
    )
    parser.add_argument("--version", action="version", version=f"disco-sidecar {__version__}")
    parser.parse_args(arguments)
    sys.stderr.write(f"disco-sidecar {__version__} isn't there yet. It will be {WHAT_IT_WILL_BE}\n")
    return NOT_THERE_YET


if __name__ == "__main__":
    sys.exit(main())
