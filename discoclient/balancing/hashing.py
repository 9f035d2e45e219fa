"""Numbers from names, the same in every process, which `hash` is not."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["digest", "fraction", "mix"]

_MASK = (1 << 64) - 1


def digest(name: str | bytes | int) -> int:
    """64 bits. A number and its digits are two names."""
    data = name if isinstance(name, bytes) else f"{type(name).__name__}:{name}".encode()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def mix(number: int) -> float:
    """Between 0 and 1, both excluded, and telling nothing of *number*: the end of SplitMix64 (Steele, Lea, Flood, 2014)."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((number ^ (number >> 31)) >> 12) + 0.5) / (1 << 52)


def fraction(name: str | bytes | int, choice: str) -> float:
    """Between 0 and 1, the same for the same name, and for another *choice* a number that has nothing to do with it."""
    return mix(digest(name) ^ digest(choice))
