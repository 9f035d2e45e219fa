"""Responses that hypothesis makes up: what is right is read the same, and what is bent never more laxly than by httpx."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.properties import thorough

from .engines import WAYS, Way
from .judging import judge
from .messages import Made, mutated, valid


@pytest.mark.parametrize("way", WAYS, ids=repr)
@given(made=valid(), is_whole=st.booleans())
@thorough(80)
def test_what_is_right_is_read_the_same(way: Way, made: Made, is_whole: bool) -> None:
    assert judge(made, way, is_whole=is_whole, may_be_stricter=False) == []


@pytest.mark.parametrize("way", WAYS, ids=repr)
@given(made=mutated(), is_whole=st.booleans())
@thorough(120)
def test_what_is_bent_is_never_read_more_laxly(way: Way, made: Made, is_whole: bool) -> None:
    assert judge(made, way, is_whole=is_whole, may_be_stricter=True) == []
