"""``disco watch``, as a process, on a real registry."""

import json
import signal
from datetime import datetime

import pytest

from discoclient import State
from discoclient.cli import looking
from discoclient.dev import EtcdCluster
from discoclient.registry.codec import to_record
from tests.cli.conftest import Disco, StartDisco
from tests.cli.records import Records, instance
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes

SLOW = 30.0
"""Seconds that a busy machine may take for what takes it a moment."""


def test_all_services_are_followed_new_ones_too_until_ctrl_c(
    start_disco: StartDisco, records: Records
) -> None:
    first = instance("experiment", "aaaaaaaa")
    records.put(first)
    watching = start_disco("--registry", records.url, "watch")
    line = watching.wait_for_line(timeout=SLOW)
    assert line.split(" ", 1)[1] == "+ experiment aaaaaaaa 10.0.0.5:8000 ready"
    datetime.strptime(line.split()[0], "%H:%M:%S")  # noqa: DTZ007 - it is the time of day that is looked at

    new = instance("ledger", "bbbbbbbb", host="::1", port=9)
    records.put(new)
    watching.wait_for_line("+ ledger bbbbbbbb [::1]:9 ready", timeout=SLOW)
    records.put(instance("experiment", "aaaaaaaa", state=State.DRAINING, version="2"))
    watching.wait_for_line(
        "~ experiment aaaaaaaa 10.0.0.5:8000 draining  state: ready -> draining, version: - -> 2",
        timeout=SLOW,
    )
    records.remove(new)
    watching.wait_for_line("- ledger bbbbbbbb [::1]:9 ready", timeout=SLOW)
    assert len(watching.output.splitlines()) == 4
    watching.signal(signal.SIGINT)
    assert watching.wait(timeout=SLOW) == 0
    assert watching.errors == ""


def test_one_service_is_followed_alone_as_json_until_sigterm(
    start_disco: StartDisco, records: Records
) -> None:
    records.put(instance("ledger", "aaaaaaaa"))
    watching = start_disco("--registry", records.url, "watch", "experiment", "--json")
    eventually(lambda: "disco: nothing is registered as experiment yet" in watching.errors, timeout=SLOW)
    came = instance("experiment", "bbbbbbbb", metadata={"team": "red"})
    unready = instance("experiment", "bbbbbbbb", metadata={"team": "red"}, state=State.UNREADY)
    records.put(came)
    watching.wait_for_line('"+"', timeout=SLOW)
    records.put(instance("ledger", "cccccccc"), unready)
    watching.wait_for_line('"~"', timeout=SLOW)
    records.remove(unready)
    watching.wait_for_line('"-"', timeout=SLOW)
    watching.signal(signal.SIGTERM)
    assert watching.wait(timeout=SLOW) == 0

    lines = [json.loads(line) for line in watching.output.splitlines()]
    revisions = [line.pop("revision") for line in lines]
    assert revisions == sorted(set(revisions))
    for line in lines:
        assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert lines == [
        to_record(came) | {"age": None, "change": "+", "changed": {}},
        to_record(unready) | {"age": None, "change": "~", "changed": {"state": ["ready", "unready"]}},
        to_record(unready) | {"age": None, "change": "-", "changed": {}},
    ]


READER = """
import subprocess, sys
watch = subprocess.Popen([sys.executable, "-m", "discoclient.cli", *sys.argv[1:]], stdout=subprocess.PIPE)
print(watch.stdout.readline().decode(), end="")
watch.stdout.close()
print("exit", watch.wait())
"""


def test_it_ends_when_its_reader_does_though_nothing_more_happens(
    processes: Processes, records: Records
) -> None:
    """As in ``disco watch | head -n 1``. A write would notice, and here nothing is left to be written."""
    records.put(instance("experiment", "aaaaaaaa"))
    reader = processes.code(READER, "--registry", records.url, "watch")
    assert reader.wait(timeout=SLOW) == 0
    line, code = reader.output.splitlines()
    assert line.endswith(" + experiment aaaaaaaa 10.0.0.5:8000 ready")
    assert (code, reader.errors) == ("exit 0", "")


def test_it_goes_on_when_etcd_goes_away_and_says_so_once_and_once_when_it_is_back(
    start_disco: StartDisco, etcd_node: EtcdCluster
) -> None:
    records = Records(etcd_node.registry_url)
    records.put(instance("experiment", "aaaaaaaa"))
    watching = start_disco("--registry", records.url, "watch")
    watching.wait_for_line("+ experiment aaaaaaaa", timeout=SLOW)
    (member,) = etcd_node.members
    member.kill()
    eventually(lambda: "the registry does not answer" in watching.errors, timeout=SLOW)
    member.start()
    eventually(lambda: "the registry answers again" in watching.errors, timeout=SLOW)
    records.put(instance("experiment", "bbbbbbbb"))
    watching.wait_for_line("+ experiment bbbbbbbb", timeout=SLOW)
    watching.signal(signal.SIGINT)
    assert watching.wait(timeout=SLOW) == 0
    lost, back = watching.errors.splitlines()
    assert lost.startswith("disco: the registry does not answer (etcd 127.0.0.1:")
    assert lost.endswith(" s old")
    assert back == "disco: the registry answers again"
    assert len(watching.output.splitlines()) == 2


def test_an_unreachable_registry_at_the_start_is_exit_code_4(
    disco: Disco, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_TIMEOUT", 0.5)
    result = disco("--registry", f"etcd://127.0.0.1:{free_port()}", "watch")
    assert (result.code, result.out) == (4, "")
    assert "did not answer within 0.5 s" in result.err
