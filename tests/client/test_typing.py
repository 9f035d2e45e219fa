"""The types that users see: what is right passes ``mypy --strict``, and what is wrong does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_users_of_the_package_pass_mypy_strict(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is in the dependency group `lint`")
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--follow-imports=silent"]
    command += ["--config-file=", f"--cache-dir={tmp_path}"]
    files = [HERE / "typing_api.py", HERE / "wrong_typing.py"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.stdout.startswith("Success"), done.stdout + done.stderr
