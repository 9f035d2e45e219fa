"""The command, before it does anything."""

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
def test_version_is_the_distributions(command: tuple[str, ...]) -> None:
    done = run(*command, "--version")
    assert (done.returncode, done.stdout) == (0, f"disco-sidecar {disco_sidecar.__version__}\n")


def test_an_unknown_option_is_wrong_usage() -> None:
    done = run(*AS_MODULE, "--no-such-option")
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
