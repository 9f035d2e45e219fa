"""docs/trouble.md is true: its table is the one that is obeyed, its options exist, its defaults are the defaults."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from discoclient import (
    DiscoClient,
    DiscoOptions,
    HedgePolicy,
    OutlierPolicy,
    RetryPolicy,
    SlowStartPolicy,
)
from discoclient.balancing.balancer import BALANCERS
from discoclient.calling.retries import RETRIES, Cause, cause_of
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.transport.options import IDEMPOTENT

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "trouble.md").read_text()
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.partition("## How long it takes")[0].splitlines()
    if line.startswith("|")
][2:]

CAUSES = {
    "nothing was sent": Cause.CONNECT,
    "421 from the middleware": Cause.MISDIRECTED,
    "a used connection": Cause.STALE,
    "sent, and no answer": Cause.NO_ANSWER,
    "502, 503, 504": Cause.UNAVAILABLE,
    "429, 503 with": Cause.OVERLOADED,
}


def row(beginning: str) -> list[str]:
    (found,) = (cells for cells in TABLE if cells[0].startswith(beginning))
    return found


@pytest.mark.parametrize(("beginning", "cause"), CAUSES.items())
def test_each_row_says_what_the_table_that_is_obeyed_says(beginning: str, cause: Cause) -> None:
    _, idempotent, other, body, where = row(beginning)
    rule = RETRIES[cause]
    assert idempotent == "yes"
    assert other == ("yes" if rule.any_method else "no")
    assert body == ("bytes" if rule.needs_body else "any")
    assert ("same instance" in where) == rule.is_same


def test_every_cause_has_a_row() -> None:
    assert set(CAUSES.values()) == set(RETRIES)
    assert len(TABLE) == len(RETRIES) + 3


@pytest.mark.parametrize("status", [200, 301, 400, 404, 408, 421, 429, 500, 501, 505])
def test_any_other_answer_is_not_tried_again(status: int) -> None:
    assert row("any other answer")[1:3] == ["no", "no"]
    assert cause_of(Outcome(OutcomeKind.RESPONSE, 0.1, status)) is None


def test_the_methods_of_the_table_are_those_that_count_as_idempotent() -> None:
    (header,) = re.findall(r"what happened \| (.*?) \|", TEXT)
    assert set(header.split(", ")) == IDEMPOTENT


def test_the_options_exist_and_the_defaults_are_the_defaults() -> None:
    parameters = inspect.signature(DiscoClient).parameters
    named = set(re.findall(r"\b(\w+)=\w*Policy\(", TEXT)) | {"zone", "versions", "subset", "vanish_grace"}
    named |= {"last_known", "hooks", "deadline", "balancer"}
    assert named <= parameters.keys()
    assert set(re.findall(r'\{"disco": \{"(\w+)"', TEXT)) <= DiscoOptions.__annotations__.keys()
    assert all(f"`{name}`" in TEXT for name in BALANCERS)
    assert "window=10, floor=0.1" in TEXT
    assert SlowStartPolicy() == SlowStartPolicy(window=10, floor=0.1)
    retry, outlier, hedge = RetryPolicy(), OutlierPolicy(), HedgePolicy()
    assert (
        f"At most **{retry.max_attempts} attempts**, of which at most **{retry.max_attempts_sent} may" in TEXT
    )
    assert f"at most {retry.budget:.0%}".replace("%", " %") in TEXT
    assert f"plus {retry.budget_reserve:g} a second" in TEXT
    assert f"fails {outlier.consecutive_failures} times in a row" in TEXT
    assert f"{outlier.min_success_rate:.0%}".replace("%", " % good answers") in TEXT
    assert f"vanish_grace={parameters['vanish_grace'].default:g}" in TEXT
    assert f"longer than {hedge.percentile:.0%}".replace("%", " %") in TEXT
    assert f"at most {hedge.budget:.0%}".replace("%", " % more") in TEXT
