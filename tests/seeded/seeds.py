"""A seeded bug: a patch to `discoclient/`, why it is a bug, and the tests that are there to catch it.

A file ``NN-name.patch`` begins with the reason in prose, then ``Tests: FILE ...``, then a unified diff. `apply` finds a hunk by
its text and not by its line numbers, so that a patch outlives changes elsewhere in the file; ``patch -p1`` takes it too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Hunk", "Seed", "all_seeds"]

HERE = Path(__file__).resolve().parent
MARK = "Tests: "


@dataclass(frozen=True, slots=True)
class Hunk:
    """In the file at *path*, *before* becomes *after*."""

    path: str
    before: str
    after: str

    def applied(self, text: str) -> str:
        """*text* with the hunk. Raises `ValueError` unless it has *before* exactly once."""
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.path}: the hunk's text is there {found} times")
        return text.replace(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Seed:
    name: str
    reason: str
    tests: tuple[str, ...]
    hunks: tuple[Hunk, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `ValueError` if the patch is not as described above."""
        head, separator, diff = path.read_text().partition("--- a/")
        reason, mark, tests = head.partition(MARK)
        if not separator or not mark:
            raise ValueError(f"{path.name}: a reason, a line {MARK!r} and a diff are expected")
        return cls(path.stem, " ".join(reason.split()), tuple(tests.split()), tuple(_hunks(separator + diff)))

    def apply(self, root: Path) -> None:
        """To the tree at *root*. Raises `ValueError` if it does not fit."""
        for hunk in self.hunks:
            file = root / hunk.path
            file.write_text(hunk.applied(file.read_text()))


def all_seeds() -> list[Seed]:
    """In the order of their numbers."""
    return [Seed.read(path) for path in sorted(HERE.glob("*.patch"))]


def _hunks(diff: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    for part in re.split(r"^--- a/", diff, flags=re.MULTILINE)[1:]:
        path = part.split("\n", 1)[0].strip()
        for body in re.split(r"^@@.*@@.*\n", part, flags=re.MULTILINE)[1:]:
            lines = body.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            hunks.append(Hunk(path, before, after))
    return hunks
