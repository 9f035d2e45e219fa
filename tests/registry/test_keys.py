"""Where things stand under a prefix."""

from __future__ import annotations

import pytest

from discoclient.registry.keys import DEFAULT_PREFIX, Keys
from discoclient.registry.memory_store import in_range


def test_the_keys_are_those_of_the_contract() -> None:
    keys = Keys()
    assert DEFAULT_PREFIX == "/disco/v1"
    assert keys.all_services == "/disco/v1/services/"
    assert keys.service("experiment") == "/disco/v1/services/experiment/"
    assert keys.instance("experiment", "0f3c0f3c") == "/disco/v1/services/experiment/0f3c0f3c"
    assert keys.control("experiment", "0f3c0f3c") == "/disco/v1/control/experiment/0f3c0f3c"


def test_another_prefix_moves_all_of_them() -> None:
    keys = Keys("/team/x")
    assert keys.service("experiment") == "/team/x/services/experiment/"
    assert keys.control("experiment", "0f3c0f3c") == "/team/x/control/experiment/0f3c0f3c"


@pytest.mark.parametrize(
    ("key", "is_ours"),
    [
        ("/disco/v1/services/experiment/0f3c0f3c", True),
        ("/disco/v1/services/experiment/", True),
        ("/disco/v1/services/experiment2/0f3c0f3c", False),
        ("/disco/v1/services/experiment", False),
        ("/disco/v1/services/experimen/0f3c0f3c", False),
    ],
)
def test_a_service_of_a_longer_name_is_another_one(key: str, is_ours: bool) -> None:
    assert in_range(key, Keys().service("experiment")) is is_ours


def test_what_does_not_end_in_a_slash_is_one_key() -> None:
    key = Keys().instance("experiment", "0f3c0f3c")
    assert in_range(key, key)
    assert not in_range(key + "0", key)
    assert not in_range(key + "/0", key)
