"""The demo as it is run: a process of its own, a real etcd, real services. And nothing of it is left."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient.dev import find_etcd
from discoclient.system.family import family
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess

RUN = """
import json, sys
from discoclient import RetryPolicy
from discoclient.cli.demo import Plan, run_demo
options = json.loads(sys.argv[1])
if "retry" in options:
    options["retry"] = RetryPolicy(**options["retry"])
sys.exit(run_demo(plan=Plan(**options), as_json="--json" in sys.argv))
"""
AT_THE_DEPLOY = (
    """
from discoclient.cli.demo_story import Story
living = []
Story._kill_instance = lambda self, victim: living.append(victim)
Story._kill_leader = lambda self: ("", "", 0.0)
Story._join = lambda self, hostname: living[0]
"""
    + RUN
)
"""As `RUN`, without what comes between the first act and the deploy: nobody is killed, so nobody joins."""
QUICK = {
    "ttl": 2.0,
    "rate": 60.0,
    "well": 1.0,
    "after_death": 0.2,
    "after_election": 1.0,
    "after_join": 1.5,
    "after_broken": 0.1,
    "bake": 0.3,
    "after_deploy": 0.7,
    "without_etcd": 1.5,
}
SHORTER = QUICK | {
    "well": 0.5,
    "after_election": 0.3,
    "after_join": 0.5,
    "after_deploy": 0.3,
    "without_etcd": 0.5,
}
BARE = {"retry": {"max_attempts": 1, "connect_timeout": 30.0}, "balancer": "round_robin"}
"""Callers that never try again, and go to each one that they know. A busy machine is no reason to fail: they wait longer."""
DEPLOY = {
    "A broken version 2 changed nothing",
    "The deploy failed no GET and no POST",
    "Each POST was done once",
    "Version 1 saw its callers leave, and ended",
    "It was replaced on all hosts at once",
    "Since then version 2 answered everything",
}
DEADLINE = 90.0


class Demo:
    """A demo that runs, with a folder for temporary files that is its own."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self._folder = folder

    def start(
        self, *words: str, plan: dict[str, object] | None = None, program: str = RUN, **env: str
    ) -> PythonProcess:
        options = json.dumps(QUICK if plan is None else plan)
        return self._processes.python("-c", program, options, *words, env={"TMPDIR": str(self._folder)} | env)

    def left_behind(self) -> list[str]:
        return [path.name for path in self._folder.iterdir()]


@pytest.fixture
def demo(processes: Processes, tmp_path: Path) -> Demo:
    return Demo(processes, tmp_path)


def descendants(pid: int) -> dict[int, str]:
    """The processes that stem from *pid* and are there, with their commands. Who waits to be reaped has none."""
    found = {}
    for each in family(pid) - {pid}:
        try:
            found[each] = Path(f"/proc/{each}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return {each: command for each, command in found.items() if command}


def number_of(found: dict[int, str], *words: str) -> int:
    """How many of the commands have all the words."""
    return sum(all(word in command for word in words) for command in found.values())


def still_there(found: dict[int, str]) -> Iterator[str]:
    """Those of *found* that live on, whoever their parent is now. A pid that came back has another command."""
    for pid, command in found.items():
        try:
            if Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") == command:
                yield command
        except OSError:
            continue


def test_the_demo_sees_what_it_claims_and_leaves_nothing(demo: Demo) -> None:
    elsewhere = {"DISCO_OVERRIDE_EXPERIMENT": "http://127.0.0.1:1", "DISCO_HOST": "203.0.113.1"}
    process = demo.start("--json", DISCO_REGISTRY="etcd://127.0.0.1:1", **elsewhere)
    code = process.wait(timeout=DEADLINE)
    story = process.errors
    assert code == 0, story
    found = json.loads(process.output)
    assert found["held"] is True
    assert found["failed"] == 0
    assert found["requests"] > 300
    assert [act["failed"] for act in found["acts"]] == [0] * 7
    assert all(act["requests"] > 0 for act in found["acts"])
    assert len(found["acts"][0]["answers"]) == 3
    assert len(found["acts"][3]["answers"]) == 3
    assert len(found["acts"][5]["answers"]) == 6
    assert len(found["acts"][6]["answers"]) == 3
    assert [each["exit_code"] for each in found["deploy"]["broken"]] == [3] * 3
    hosts = found["deploy"]["hosts"]
    assert [each["hostname"] for each in hosts] == ["web-1", "web-2", "web-3"]
    assert all(each["drain_clean"] and each["callers_acknowledged"] == 1 for each in hosts)
    assert all(
        each["registered_after"] < each["draining_after"] < each["gone_after"] and each["exit_code"] == 0
        for each in hosts
    )
    posts = [act["posts"] for act in found["acts"]]
    assert found["deploy"]["posts_done"] == sum(posts)
    assert posts[4] > 0
    assert posts[5] > 0
    assert all(claim["held"] for claim in found["claims"])
    assert found["etcd"] == str(find_etcd())
    assert str(find_etcd()) in story
    for said in (
        "SIGKILL to",
        "traffic had moved",
        "left the registry",
        " leads",
        "its first request",
        "no such table: users",
        "registered beside",
        "asked to retire, through the registry",
        "acknowledged in",
        " s old",
    ):
        assert said in story
    assert story.count("✓") == len(found["claims"])
    assert f"All {len(found['claims'])} claims held" in story
    assert demo.left_behind() == []


def test_without_retries_requests_fail_and_the_demo_says_so(demo: Demo) -> None:
    """The negative control: the same story, with the protection off, and callers that ask the dead one for certain."""
    process = demo.start("--json", plan=SHORTER | BARE)
    code = process.wait(timeout=DEADLINE)
    assert code == 1, process.errors
    found = json.loads(process.output)
    assert found["held"] is False
    assert found["failed"] > 0
    assert not found["claims"][0]["held"]
    assert "✗" in process.errors
    assert "did NOT hold" in process.errors
    # A deploy needs no second try: nobody sends to who has left, and nobody leaves before that.
    assert {claim["held"] for claim in found["claims"] if claim["claim"] in DEPLOY} == {True}
    assert demo.left_behind() == []


def test_without_the_drain_a_deploy_fails_requests_and_the_demo_says_so(demo: Demo) -> None:
    """The negative control of the deploy: version 1 ends as soon as it is asked to."""
    process = demo.start("--json", plan=SHORTER | BARE | {"drains": False})
    code = process.wait(timeout=DEADLINE)
    assert code == 1, process.errors
    found = json.loads(process.output)
    assert found["acts"][5]["failed"] > 0
    claims = {claim["claim"]: claim["held"] for claim in found["claims"]}
    assert not claims["The deploy failed no GET and no POST"]
    assert not claims["Version 1 saw its callers leave, and ended"]
    assert [each["exit_code"] for each in found["deploy"]["hosts"]] == [1] * 3
    assert "had ended without a drain" in process.errors
    assert demo.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_demo_that_is_ended_early_leaves_nothing(demo: Demo, number: signal.Signals) -> None:
    process = demo.start()
    process.wait_for_line("1. All is well", timeout=30)
    started = descendants(process.pid)
    assert number_of(started, "demo_service") == 3
    assert number_of(started, "--data-dir") == 3  # the members of etcd
    assert demo.left_behind()
    process.signal(number)
    assert process.wait(timeout=30) == 128 + number, process.errors
    assert not list(still_there(started))
    assert demo.left_behind() == []
    assert process.errors == f"disco: the demo was ended by {number.name}; what it had started is gone"


def test_a_demo_that_is_ended_in_the_middle_of_a_deploy_leaves_nothing_either(demo: Demo) -> None:
    process = demo.start(plan=SHORTER, program=AT_THE_DEPLOY)
    process.wait_for_line(". Version 2", timeout=DEADLINE)
    process.wait_for_line("registered beside", timeout=DEADLINE)
    started = descendants(process.pid)
    assert number_of(started, "discoclient.cli run", "--replace") == 3
    assert number_of(started, "disco-guardian")
    assert number_of(started, "demo_service.py", "--port", "discoclient.cli run") == 3
    process.signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130, process.errors
    assert not list(still_there(started))
    assert demo.left_behind() == []
    assert process.errors == "disco: the demo was ended by SIGINT; what it had started is gone"


def test_a_signal_while_etcd_starts_is_heeded_too(demo: Demo) -> None:
    process = demo.start()
    eventually(demo.left_behind, timeout=30)  # etcd's folder: its members come up now
    process.signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143, process.errors
    assert demo.left_behind() == []


def test_a_service_that_does_not_come_up_is_told_with_its_last_words(demo: Demo) -> None:
    process = demo.start(plan=QUICK | {"ttl": 1.0})
    assert process.wait(timeout=DEADLINE) == 1
    line = process.errors
    assert line.count("\n") == 0
    assert line.startswith("disco: a service did not come up")
    assert "ttl must be 2 seconds or more" in line
    assert demo.left_behind() == []


def test_an_etcd_that_is_none_is_told_in_one_line(demo: Demo) -> None:
    process = demo.start(DISCO_ETCD_BIN="/bin/false")
    assert process.wait(timeout=DEADLINE) == 2
    assert process.errors.startswith("disco: $DISCO_ETCD_BIN: ")
    assert process.errors.count("\n") == 0
    assert process.output == ""
    assert demo.left_behind() == []


@pytest.mark.soak
def test_the_demo_in_full_length_takes_less_than_40_s(demo: Demo) -> None:
    process = demo.start("--json", plan={})
    assert process.wait(timeout=120) == 0, process.errors
    assert json.loads(process.output)["seconds"] < 40
