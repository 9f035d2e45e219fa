"""What the fuzzer once found stays found. Add to it: ``python -m tests.wire.fuzz --seconds 60``."""

from __future__ import annotations

from pathlib import Path

import pytest

from .corpora import CORPUS, load, save
from .engines import Way
from .judging import judge
from .messages import Made

FOUND = dict(load())


@pytest.mark.parametrize("name", FOUND or ["none yet"])
def test_what_was_found_once_is_all_right(way: Way, name: str) -> None:
    if name not in FOUND:
        pytest.skip(f"nothing in {CORPUS.name}/")
    problems = [
        judge(FOUND[name], way, is_whole=is_whole, may_be_stricter=True) for is_whole in (True, False)
    ]
    assert problems == [[], []]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = Made(bytes(range(256)), (3, 5), ends=False, method="HEAD")
    path = save(made, ["because"], tmp_path)
    assert save(made, ["because"], tmp_path) == path
    assert list(load(tmp_path)) == [(path.stem, made)]
