"""How hypothesis is used here: the same examples every time, no clock, no database on disk."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["thorough"]


def thorough(examples: int, *, steps: int = 50) -> settings:
    """Settings for *examples* examples; of a state machine, each of up to *steps* steps.

    Derandomized: a suite that fails must fail for everybody. To hunt for more, raise the numbers for a while.
    """
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
