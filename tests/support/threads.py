"""Work side by side, whose failures are not lost with its threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


def in_threads(work: Iterable[Callable[[], object]]) -> None:
    """Each of *work* in a thread of its own, all of them to their end; an `AssertionError` if one of them failed."""
    failures: list[BaseException] = []

    def guarded(each: Callable[[], object]) -> None:
        try:
            each()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
