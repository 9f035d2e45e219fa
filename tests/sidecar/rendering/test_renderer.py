"""The whole of it on a registry in this process: what ends up in the file, and which commands were run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from disco_sidecar.rendering import Job, Pair
from discoclient import ConfigError, DiscoveryTimeout, Instance, State
from discoclient.control.hub import fresh_hub
from tests.cli.records import instance
from tests.sidecar.rendering.scene import SLOW, Scene
from tests.support.eventually import eventually
from tests.support.ports import free_port


def member(port: int, **fields: object) -> Instance:
    return instance("experiment", f"aaaaaa{port:04}", port=port, **fields)


ONE, TWO = member(1), member(2)


@pytest.fixture(autouse=True)
def own_hub() -> Iterator[None]:
    with fresh_hub():
        yield


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.stop()


def test_instances_come_and_go_and_each_change_is_checked_before_and_reloaded_after(scene: Scene) -> None:
    scene.records.put(ONE)
    scene.start()
    scene.wait_told("written")
    scene.records.put(TWO)
    scene.wait_out(1, 2)
    scene.wait_told("written", "2 of experiment")
    scene.records.put(member(1, state=State.DRAINING))
    scene.wait_out(2)
    scene.wait_told("written", "1 of experiment", after=2)
    scene.records.remove(ONE)  # which was not in it any more
    scene.stop()
    assert scene.runs == [
        f"{do} {what}" for what in ("10.0.0.5:1 ", "10.0.0.5:1 10.0.0.5:2 ", "10.0.0.5:2 ") for do in ("check", "reload")
    ]  # fmt: skip
    assert (scene.leftovers(), scene.is_well) == ([], True)


def test_what_changes_nothing_in_the_file_reloads_nothing(scene: Scene) -> None:
    scene.records.put(ONE)
    scene.out.write_text("10.0.0.5:1\n")
    scene.start()
    assert "as it should be" in scene.wait_told("unchanged").text
    scene.records.put(member(1, version="2"))
    scene.records.remove(ONE)
    scene.wait_told("empty")
    scene.records.put(instance("experiment", "another-id", port=1))  # it is back, under another id
    scene.wait_told("back", "experiment has instances again")
    scene.stop()
    assert scene.runs == []


def test_what_does_not_pass_the_check_stays_out_is_told_once_and_the_next_change_is_tried(
    scene: Scene,
) -> None:
    scene.records.put(ONE)
    scene.start()
    scene.wait_told("written")
    scene.bad.write_text(":2")
    scene.records.put(TWO)
    told = scene.wait_told("failed")
    assert told.text == "out: the check failed (exit code 1), the old file stays"
    assert (told.output, told.facts, told.is_trouble) == ("it is bad", {"step": "check"}, True)
    scene.wait_out(1)
    eventually(lambda: scene.runs[2:].count("check 10.0.0.5:1 10.0.0.5:2 ") >= 2, timeout=SLOW)
    scene.records.put(member(3), member(2, state=State.DRAINING))
    scene.wait_out(1, 3)
    scene.wait_told("written", after=2)
    scene.stop()
    assert not [run for run in scene.runs if run.startswith("reload") and ":2" in run]
    assert scene.kinds.count("failed") == 1
    assert scene.leftovers() == []


def test_without_the_check_the_same_comes_into_place(tmp_path: Path) -> None:
    """The negative control."""
    scene = Scene(tmp_path, check=None)
    scene.bad.write_text(":2")
    scene.records.put(ONE, TWO)
    assert scene.run() is True
    assert scene.out.read_text() == "10.0.0.5:1\n10.0.0.5:2\n"


def test_a_check_that_does_not_name_the_file_looks_at_it_in_place_and_it_is_taken_back(
    tmp_path: Path,
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    scene = Scene(
        tmp_path,
        check=f"(echo check; cat {out}) | tr '\\n' ' ' >> {log}; echo >> {log}; ! grep -q :2 {out}",
    )
    scene.records.put(ONE)
    with scene:
        scene.wait_told("written")
        scene.records.put(TWO)
        scene.wait_told("failed", "the check failed")
        scene.wait_out(1)
        eventually(lambda: scene.leftovers() == [], timeout=SLOW)
    assert scene.runs[:3] == ["check 10.0.0.5:1 ", "reload 10.0.0.5:1 ", "check 10.0.0.5:1 10.0.0.5:2 "]


def test_the_first_file_of_all_is_taken_away_again_if_it_is_bad(tmp_path: Path) -> None:
    scene = Scene(tmp_path, check="false")
    scene.records.put(ONE)
    assert scene.run() is False
    assert not scene.out.exists()
    assert scene.leftovers() == []


def test_a_failed_reload_is_told_and_tried_again_and_owed_over_a_restart(scene: Scene) -> None:
    scene.broken.touch()
    scene.records.put(ONE)
    scene.start()
    told = scene.wait_told("failed")
    assert told.text == "out: written, but the reload failed (exit code 7); trying again"
    assert (told.output, told.facts) == ("no can do", {"step": "reload"})
    eventually(lambda: scene.runs.count("reload 10.0.0.5:1 ") >= 2, timeout=SLOW)
    scene.stop()
    assert (scene.kinds, scene.is_well) == (["failed"], False)
    scene.wait_out(1)
    scene.broken.unlink()
    before = len(scene.runs)
    assert scene.run() is True  # though the file is as it should be
    assert scene.runs[before:] == ["check 10.0.0.5:1 ", "reload 10.0.0.5:1 "]
    assert scene.leftovers() == []
    assert scene.run() is True
    assert scene.runs[before + 2 :] == []


def test_a_fleet_that_vanished_stays_in_the_file_and_one_that_never_was_is_waited_for(scene: Scene) -> None:
    scene.start()
    told = scene.wait_told("empty")
    assert (
        told.text == "experiment has no instance; nothing is written until it has one, or with --allow-empty"
    )
    assert not scene.out.exists()
    scene.records.put(ONE)
    scene.wait_out(1)
    scene.wait_told("written")
    before = len(scene.told)
    scene.records.remove(ONE)
    told = scene.wait_told("empty", after=before)
    assert told.text == "experiment has no instance any more; its last ones stay in out"
    scene.wait_out(1)
    scene.records.put(TWO)
    scene.wait_out(2)
    scene.wait_told("back", after=before)


def test_with_allow_empty_it_is_written_empty(tmp_path: Path) -> None:
    """The negative control."""
    with Scene(tmp_path, allow_empty=True) as scene:
        scene.wait_out()
        scene.records.put(ONE)
        scene.wait_out(1)
        scene.records.remove(ONE)
        scene.wait_out()
    assert "empty" not in scene.kinds


def test_one_service_that_vanished_does_not_stop_the_others(tmp_path: Path) -> None:
    template = (
        "{% for s in services.values() %}{% for i in s.instances %}{{ i.port }} {% endfor %}{% endfor %}"
    )
    ledger = instance("ledger", "cccccccc", port=9)
    scene = Scene(tmp_path, template=template, services=("ledger", "experiment"))
    scene.records.put(ONE, ledger)
    with scene:
        scene.wait_told("written")
        scene.records.remove(ledger)
        scene.wait_told("empty")
        scene.records.put(TWO)
        eventually(lambda: scene.out.read_text() == "9 1 2 ", timeout=SLOW)


def test_a_mistake_in_the_template_that_shows_later_leaves_the_file_alone(tmp_path: Path) -> None:
    scene = Scene(
        tmp_path, template="{% for i in services.experiment.instances %}\n{{ i.metadata.rack }}{% endfor %}"
    )
    scene.records.put(member(1, metadata={"rack": "r1"}))
    with scene:
        eventually(lambda: scene.out.exists() and scene.out.read_text() == "r1", timeout=SLOW)
        scene.records.put(TWO)
        told = scene.wait_told("failed")
        assert told.text.startswith(f"{tmp_path}/t.j2:2: ")
        assert told.facts == {"step": "render"}
        assert scene.out.read_text() == "r1"
        scene.records.put(member(2, metadata={"rack": "r2"}))
        eventually(lambda: scene.out.read_text() == "r1r2", timeout=SLOW)


def test_several_files_change_together_or_not_at_all_with_one_reload(tmp_path: Path) -> None:
    (tmp_path / "second.j2").write_text(
        "{% for i in services.experiment.instances %}{{ i.id }}\n{% endfor %}"
    )
    pairs = (
        Pair(str(tmp_path / "t.j2"), str(tmp_path / "out")),
        Pair(str(tmp_path / "second.j2"), str(tmp_path / "second")),
    )
    scene = Scene(tmp_path, pairs=pairs)
    scene.records.put(ONE)
    with scene:
        scene.wait_told("written", "out, second")
        scene.bad.write_text("aaaaaa0002")  # only the second file is bad
        scene.records.put(TWO)
        scene.wait_told("failed")
        scene.wait_out(1)
        assert (tmp_path / "second").read_text() == "aaaaaa0001\n"
    assert sum(run.startswith("reload") for run in scene.runs) == 1


def test_nothing_is_touched_before_the_registry_has_answered(tmp_path: Path) -> None:
    url = f"etcd://127.0.0.1:{free_port()}"
    scene = Scene(tmp_path, url=url, discovery_timeout=0.4)
    scene.out.write_text("yesterday's")
    with pytest.raises(DiscoveryTimeout, match="the registry did not answer"):
        scene.run()
    assert (scene.out.read_text(), scene.runs) == ("yesterday's", [])


def test_a_stop_breaks_off_a_check_and_leaves_what_was_there(tmp_path: Path) -> None:
    scene = Scene(tmp_path, check=f"touch {tmp_path}/checking; sleep 300")
    scene.out.write_text("old")
    scene.records.put(ONE)
    scene.start()
    eventually((tmp_path / "checking").exists, timeout=SLOW)
    scene.wait_out(1)  # checked in place
    scene.stop()
    assert (scene.out.read_text(), scene.leftovers(), scene.kinds) == ("old", [], [])


def test_a_stop_lets_a_reload_finish(tmp_path: Path) -> None:
    go = tmp_path / "go"
    reload = f"touch {tmp_path}/reloading; while [ ! -e {go} ]; do sleep 0.02; done; touch {tmp_path}/done"
    scene = Scene(tmp_path, reload=reload)
    scene.records.put(ONE)
    scene.start()
    eventually((tmp_path / "reloading").exists, timeout=SLOW)
    scene.renderer.stop()
    go.touch()
    scene.stop()
    assert (tmp_path / "done").exists()
    assert (scene.kinds, scene.leftovers()) == (["written"], [])


def test_a_file_is_kept_up_to_date_by_one_alone(tmp_path: Path) -> None:
    first, second = Scene(tmp_path), Scene(tmp_path)
    first.records.put(ONE)
    with first:
        first.wait_told("written")
        with pytest.raises(ConfigError, match="another disco render keeps it up to date"):
            second.run()
    second = Scene(tmp_path, url=first.records.url)
    assert second.run() is True


def test_a_file_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.records.put(ONE)
    (tmp_path / ".out.disco-new").mkdir()  # nothing can be unlinked or made there, root or not
    assert scene.run() is False
    assert "can't write the new file" in scene.told[-1].text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"services": ()}, "no SERVICE"),
        ({"services": ("a_b",)}, "'a_b' is not a service name"),
        ({"services": ("a", "a")}, "named twice"),
        ({"pairs": ()}, "--template and --out are needed"),
        ({"pairs": (Pair("a", "x"), Pair("b", "./x"))}, "given twice"),
        ({"pairs": (Pair("a", "a"),)}, "would be overwritten"),
        ({"check": " "}, "--check is empty"),
        ({"reload": ""}, "--reload is empty"),
        ({"interval": -1.0}, "--interval must be a number of seconds, 0 or more"),
        ({"timeout": 0.0}, "--timeout must be a number of seconds, more than 0"),
    ],
)
def test_a_wrong_job_is_told_at_once(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Job(**{"services": ("a",), "pairs": (Pair("t", "o"),)} | options)  # type: ignore[arg-type]
