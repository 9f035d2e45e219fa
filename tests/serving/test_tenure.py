"""A registration beside a server that waits for none of it."""

from __future__ import annotations

import logging
import threading

import pytest

from discoclient.control.hub import fresh_hub
from discoclient.serving.tenure import Tenure
from discoclient.testing import memory_registry
from tests.support.eventually import eventually
from tests.support.servers import refused_port


def tenure(registry: str, **options: object) -> Tenure:
    log = logging.getLogger("test-tenure")
    return Tenure("experiment", 9, options={"registry": registry, **options}, retire=lambda: None, log=log)


def test_what_is_just_being_registered_is_given_up_when_the_end_comes() -> None:
    over = threading.Event()
    with fresh_hub(), refused_port() as port:
        beginning = tenure(f"etcd://127.0.0.1:{port}", timeout=60, host="127.0.0.1")
        beginning.begin()
        eventually(lambda: beginning._beginning is not None)
        beginning.end(then=over.set)
        assert over.wait(20)
        assert beginning.is_over
        assert beginning.registration is None


def test_what_has_ended_before_the_server_was_ready_is_never_registered() -> None:
    asked = threading.Event()

    def is_ready(ending: threading.Event) -> bool:
        asked.set()
        return ending.wait(20)

    log = logging.getLogger("test-tenure")
    with memory_registry() as registry:
        never = Tenure(
            "experiment",
            9,
            options={"registry": registry.url},
            is_ready=is_ready,
            retire=lambda: None,
            log=log,
        )
        never.begin()
        assert asked.wait(20)
        never.end()
        eventually(lambda: never.is_over, timeout=20)
        assert never.registration is None


def test_it_tells_how_the_drain_went(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "test-tenure")
    with memory_registry() as registry:
        stay = tenure(registry.url, quiet=0)
        stay.begin()
        eventually(lambda: stay.registration is not None, timeout=20)
        stay.end()
        eventually(lambda: stay.is_over, timeout=20)
    said = [record.message.split()[0] for record in caplog.records if record.name == "test-tenure"]
    assert said == ["Registered", "Draining", "Drained"]
