"""README's deploy recipe does what it says, as pasted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from discoclient.system.family import is_empty, signal_group
from discoclient.system.process import spawn
from tests.support.eventually import eventually

README = (Path(__file__).parents[2] / "README.md").read_text()


def recipe() -> str:
    section = README.partition("## Deploys at noon")[2].partition("\n## ")[0]
    (found,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_recipe_has_five_lines_and_leaves_the_new_version_alone(
    registry_url: str, tmp_path: Path
) -> None:
    assert len(recipe().splitlines()) == 5
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    env = {**os.environ, "DISCO_REGISTRY": registry_url, "PATH": path}
    log = tmp_path / "err"
    with log.open("wb") as err:
        shell = spawn(["bash", "-c", recipe()], env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=err)
        assert shell.stdout is not None
        try:
            lines = iter(lambda: shell.stdout.readline().decode() if shell.stdout else "", "")
            read = []
            for (
                line
            ) in lines:  # the services in the background hold the pipe: the last line is told by what it says
                read.append(line)
                if "the whole history" in line:
                    break
        finally:
            signal_group(shell.pid, signal.SIGTERM)
            shell.wait()
            eventually(lambda: is_empty(shell.pid), timeout=20, what="all of it has ended")
            shell.stdout.close()
    said = "".join(read)
    listed = re.findall(r"^\S+ +127\.0\.0\.1:\d+ +(\w+) +(\S+)", said, re.MULTILINE)
    assert listed == [("ready", "2")], said + log.read_text()
    told = re.findall(r"\d+  (registered|asked|draining|gone) +\S+ +(\S+)", said)
    assert told == [
        ("registered", "1"),
        ("registered", "2"),
        ("asked", "1"),
        ("draining", "1"),
        ("gone", "1"),
    ]
    assert "took over from" in log.read_text()
