"""What everybody meets first: help, versions, and messages about what was typed."""

import re
import sys
from collections.abc import Sequence

import pytest

import discoclient
from tests.cli.conftest import Disco
from tests.support.processes import Processes

COMMANDS = (
    "dev",
    "demo",
    "ls",
    "watch",
    "get",
    "explain",
    "run",
    "register",
    "drain",
    "weight",
    "deploys",
    "render",
    "sidecar",
    "doctor",
)
ECHO = "static://experiment=127.0.0.1:1"


def test_the_version_is_the_packages(disco: Disco) -> None:
    assert disco("--version") == type(disco("--version"))(0, f"disco {discoclient.__version__}\n", "")


def test_help_lists_every_command_and_the_exit_codes(disco: Disco) -> None:
    result = disco("--help")
    assert result.code == 0
    listed = result.out.partition("Commands:")[2].split("\n")
    assert [line.split()[0] for line in listed if line.strip()] == list(COMMANDS)
    for code in range(5):
        assert re.search(rf"^    {code}  \w", result.out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_what_it_does_and_how_it_ends(disco: Disco, command: str) -> None:
    result = disco(command, "-h")
    assert result.code == 0
    assert result.out.startswith(f"Usage: disco {command} ")
    assert "Exit codes:\n" in result.out
    if command != "demo":
        assert f"Examples:\n    disco {command}" in result.out or command == "doctor"


def test_no_command_is_answered_with_the_help_as_a_mistake(disco: Disco) -> None:
    result = disco()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Usage: disco [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["lss"],
            [
                "'lss'",
                "the commands are demo, deploys, dev, doctor, drain, explain, get, ls, register, ",
                "register, render, run, sidecar, watch, weight",
            ],
        ),
        (["ls", "--jsn"], ["--jsn", "--json", "disco ls --help"]),
        (["ls", "a", "b"], ["disco ls --help"]),
        (["ls", "--registry", ECHO], ["disco --registry URL COMMAND"]),
        (["ls", "Experiment"], ["'Experiment' is not a service name", "a-z, 0-9 and '-'"]),
        (["watch", "a_b"], ["'a_b' is not a service name"]),
        (["get", "a.b", "/"], ["'a.b' is not a service name"]),
        (["register", "-x", "--port", "1"], ["-x"]),
        (["get", "experiment"], ["PATH"]),
        (["get", "experiment", "users"], ["PATH begins with '/'", "'/users'"]),
        (["get", "experiment", "/", "-H", "no colon"], ["'Name: value'", "'no colon'"]),
        (["get", "experiment", "/", "-H", "bad name: x"], ["'Name: value'"]),
        (["get", "experiment", "/", "-d", "@/nonexistent"], ["'/nonexistent'", "No such file"]),
        (["get", "experiment", "/", "--timeout", "0"], ["--timeout", "more than 0"]),
        (["get", "experiment", "/", "--timeout", "soon"], ["--timeout"]),
        (["dev", "--nodes", "0"], ["--nodes", "1"]),
        (["dev", "--port", "70000"], ["--port", "65535"]),
        (["dev", "--port", "65534", "--nodes", "3"], ["65535"]),
        (["register", "experiment"], ["--port"]),
        (["register", "experiment", "--port", "80"], ["static://", "etcd://"]),
        (["--registry", "etcd://x?ttl=3", "ls"], ["--registry: unknown option 'ttl'", "hostnames"]),
        (["--registry", "http://x", "doctor"], ["--registry: not a registry URL", "etcd://", "static://"]),
        (["--registry", "memory://x", "ls"], ["memory:// lives within one process", "etcd://"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "static" not in value else "",
)
def test_a_mistake_is_told_in_one_line_that_names_what_is_valid(
    disco: Disco, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], words: Sequence[str]
) -> None:
    monkeypatch.setenv("DISCO_REGISTRY", ECHO)
    result = disco(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("disco: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weight", "10001"], ["--weight", "10000"]),
        (["--ttl", "1"], ["--ttl must be 2 seconds or more"]),
        (["--health-interval", "0"], ["--health-interval", "more than 0"]),
        (["--health-timeout", "-1"], ["--health-timeout", "more than 0"]),
        (["--health-failures", "0"], ["--health-failures", "1"]),
        (["--health-path", "healthz"], ["begins with '/'"]),
        (["--ready-timeout", "nan"], ["--ready-timeout"]),
        (["--quiet", "-1"], ["--quiet", "0 or more"]),
        (["--http-keepalive", "-1"], ["--http-keepalive", "0"]),
        (["--scheme", "ftp"], ["--scheme", "'http'", "'https'"]),
        (["--host", "example.com"], ["host is not an IP address"]),
        (["--host", "0.0.0.0"], ["unspecified"]),
        (["--metadata", "team"], ["K=V", "'team'"]),
        (["--metadata", "a=1", "--metadata", "a=2"], ["--metadata a is given twice"]),
        (["--metadata", f"a={'x' * 5000}"], ["longer than 4096 bytes"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_register_checks_what_it_is_told_before_it_waits_for_anything(
    disco: Disco, arguments: Sequence[str], words: Sequence[str]
) -> None:
    """Nothing listens on the port, and no registry is there: it would wait for a minute."""
    result = disco("--registry", "etcd://127.0.0.1:1", "register", "experiment", "--port", "1", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err


def test_a_wrong_variable_is_named_as_the_place_of_the_mistake(
    disco: Disco, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCO_REGISTRY", "etcd://user:secret@host:x")
    result = disco("ls")
    assert result.code == 2
    assert result.err.startswith("disco: $DISCO_REGISTRY: ")
    assert "secret" not in result.err


def test_the_option_counts_more_than_the_variable(disco: Disco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_REGISTRY", "static://other=127.0.0.1:1")
    assert disco("--registry", ECHO, "ls").lines[1].split()[0] == "experiment"
    assert disco("ls").lines[1].split()[0] == "other"


def test_an_unknown_log_level_names_the_levels(disco: Disco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_LOG", "loud")
    result = disco("--registry", ECHO, "ls")
    assert result.code == 2
    assert "debug, info, warning, error, critical" in result.err


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(
    disco: Disco, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    result = disco("ls")
    assert (result.code, result.out) == (2, "")
    assert result.err == f"disco: the command line needs {name}: pip install 'discoclient[cli]'\n"


def test_a_bug_is_one_line_and_its_traceback_is_for_those_who_ask(
    disco: Disco, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("discoclient.cli.ls.Look", broken)
    result = disco("--registry", ECHO, "ls")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "internal error: ZeroDivisionError: oh" in result.err
    monkeypatch.setenv("DISCO_LOG", "debug")
    assert "Traceback" in disco("--registry", ECHO, "ls").err


def test_what_a_command_does_not_need_is_not_imported(processes: Processes) -> None:
    """Start-up is what people wait for each time."""
    source = (
        "import sys\nfrom discoclient.cli import main\n"
        "code = main(['--registry', 'static://experiment=127.0.0.1:1', 'ls'])\n"
        "print(sorted({'etcd3', 'grpclib', 'discoclient.dev'} & sys.modules.keys()))\n"
        "sys.exit(code)\n"
    )
    process = processes.code(source)
    assert process.wait(timeout=30) == 0
    assert process.output.splitlines()[-1] == "[]"
