"""The command line."""

__all__ = ["main"]


def main() -> int:
    raise SystemExit(2)
