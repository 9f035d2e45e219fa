"""The sidecar is a skeleton: it installs, says what it will be, and pretends nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

import disco_sidecar

AS_MODULE = (sys.executable, "-m", "disco_sidecar")
AS_SCRIPT = (str(Path(sys.executable).with_name("disco-sidecar")),)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("command", [AS_MODULE, AS_SCRIPT], ids=["module", "script"])
def test_says_on_standard_error_that_it_is_not_there_yet_and_exits_2(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "isn't there yet" in done.stderr
    assert "localhost" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_is_the_distributions() -> None:
    done = run(*AS_MODULE, "--version")
    assert (done.returncode, done.stdout) == (0, f"disco-sidecar {disco_sidecar.__version__}\n")


def test_help_says_what_it_will_be() -> None:
    done = run(*AS_MODULE, "--help")
    assert done.returncode == 0
    assert "will be a small process on localhost" in " ".join(done.stdout.split())


def test_an_unknown_option_is_wrong_usage() -> None:
    done = run(*AS_MODULE, "--no-such-option")
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
