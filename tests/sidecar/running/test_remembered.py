"""What workers counted does not get lost with them."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from disco_sidecar.running.remembered import Remembered

numbers = st.integers(0, 1000)


def service(name: str, count: int) -> dict[str, Any]:
    return {
        "service": name,
        **dict.fromkeys(("requests", "retries", "received", "sent", "failed"), count),
        "in_flight": count,
        "statuses": {"2xx": count},
        "reasons": {"no_answer": count},
        "counts": {"retries": count},
        "histogram": {"bounds": [1.0], "counts": [count, 2 * count], "sum": float(count)},
    }


def state(counts: dict[str, int]) -> dict[str, Any]:
    total = sum(counts.values())
    return {
        "sidecar": {
            "connections": total,
            "connections_total": total,
            "requests": total,
            "refused": {"bad": total},
        },
        "services": [service(name, count) for name, count in counts.items()],
        "events": [],
    }


@given(st.lists(st.dictionaries(st.sampled_from("abc"), numbers), max_size=4), numbers, numbers)
def test_the_sum_is_what_the_living_say_and_what_the_gone_ones_said_last(
    gone: list[dict[str, int]], a: int, d: int
) -> None:
    remembered = Remembered()
    for counts in gone:
        remembered.keep(state(counts))
    now = state({"a": a, "d": d})
    before = copy.deepcopy(now)
    total = remembered.add_to(now)
    assert now == before
    of_a = a + sum(counts.get("a", 0) for counts in gone)
    everything = a + d + sum(sum(counts.values()) for counts in gone)
    first, second = total["services"]
    assert (first["requests"], first["statuses"], first["reasons"]) == (
        of_a,
        {"2xx": of_a},
        {"no_answer": of_a},
    )
    assert first["histogram"] == {"bounds": [1.0], "counts": [of_a, 2 * of_a], "sum": of_a}
    assert first["in_flight"] == a  # nothing of a process that is gone is under way
    assert second == service("d", d)
    assert total["sidecar"]["requests"] == total["sidecar"]["connections_total"] == everything
    assert total["sidecar"]["refused"] == {"bad": everything}
    assert total["sidecar"]["connections"] == a + d
