"""``disco ... >&-``: what a command does that has no standard output, or no standard error."""

import signal
import sys

import pytest

from tests.cli.conftest import Disco
from tests.cli.records import Records
from tests.cli.web import Web
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess

ECHO = "static://experiment=127.0.0.1:8000"
NO_OUTPUT = "disco: there is no standard output to write to: it is closed\n"
WITHOUT = """
import os, sys
os.close(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "discoclient.cli", *sys.argv[2:]])
"""


def start_without(descriptor: int, processes: Processes, *arguments: str) -> PythonProcess:
    """``disco ARGUMENTS DESCRIPTOR>&-``."""
    return processes.code(WITHOUT, str(descriptor), *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--registry", ECHO, "ls"),
        ("--registry", ECHO, "ls", "--json"),
        ("--registry", ECHO, "ls", "experiment"),
        ("--registry", ECHO, "watch", "experiment"),
        ("--registry", ECHO, "watch", "nobody"),
        ("--registry", ECHO, "doctor"),
        ("--registry", ECHO, "doctor", "--json"),
    ],
    ids=" ".join,
)
def test_a_command_that_can_t_show_what_was_asked_for_says_so_in_one_line(
    disco: Disco, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    result = disco(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith(NO_OUTPUT)
    assert result.err.replace("disco: nothing is registered as nobody yet\n", "") == NO_OUTPUT


def test_neither_does_it_in_a_process_of_its_own(processes: Processes) -> None:
    process = start_without(1, processes, "--registry", ECHO, "ls")
    assert process.wait(timeout=30.0) == 1
    assert (process.output, f"{process.errors}\n") == ("", NO_OUTPUT)


def test_an_answer_that_can_t_be_shown_is_a_failure(
    disco: Disco, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    result = disco("--registry", f"static://experiment=127.0.0.1:{web.port}", "get", "experiment", "/")
    assert (result.code, result.out) == (1, "")
    first, second = result.err.splitlines(keepends=True)
    assert first.startswith("200 from ")
    assert second == NO_OUTPUT


def test_a_service_is_registered_and_taken_out_all_the_same(
    processes: Processes, records: Records, web: Web
) -> None:
    """As with a reader who went away: what is said on the way is not what the command is for."""
    options = ("--port", str(web.port), "--host", "127.0.0.1", "--quiet", "0", "--health-interval", "0.05")
    process = start_without(1, processes, "--registry", records.url, "register", "experiment", *options)
    eventually(lambda: records.states("experiment") == ["ready"], timeout=30.0)
    process.signal(signal.SIGTERM)
    assert process.wait(timeout=30.0) == 0
    assert process.errors == ""
    assert records.entries("experiment") == ()


def test_what_belongs_on_a_standard_error_that_is_closed_does_not_go_to_standard_output(
    disco: Disco, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    result = disco("--registry", ECHO, "ls", "nobody", "--json")
    assert (result.code, result.out, result.err) == (1, "", "")
