"""The command ``disco-sidecar``, also ``python -m disco_sidecar``."""

from __future__ import annotations

import sys

from .slim import spare

spare()

from .cli import main  # noqa: E402 - it loads what is to be spared

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
