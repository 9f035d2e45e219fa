"""Show that the tests catch every seeded bug: ``python -m tests.seeded [NAME...]``, where a part of a name is enough.

For each one, in a copy of its own: the named tests pass, the bug is put in, and one of them fails. The exit code is 1 if a bug
survives, or if that could not be found out; 2 if no bug has such a name.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .seeds import Seed, all_seeds

__all__ = ["Trial", "main", "run"]

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("benchmarks", "discoclient", "pyproject.toml", "sidecar", "tests")
AT_ONCE = 2
"""Copies that are tested side by side: many tests start processes, and have bounds on what they wait for."""
MOST = 300.0
"""Seconds for the tests of one bug."""

GUARD = """
from pathlib import Path

import discoclient

ours = Path(__file__).resolve().parent
if not Path(discoclient.__file__).resolve().is_relative_to(ours):
    raise SystemExit(f"not the copy is tested, but {discoclient.__file__}")
"""
"""A plugin of pytest's: it must be the copy that is tested, and not what is installed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a seed. *caught_by*: the first test that failed. *trouble*: why nothing was found out."""

    seed: Seed
    caught_by: str | None
    seconds: float
    trouble: str | None = None

    @property
    def is_caught(self) -> bool:
        return self.caught_by is not None


def run(seed: Seed) -> Trial:
    """Try *seed* out in a temporary folder."""
    began = time.monotonic()

    def trial(caught_by: str | None, trouble: str | None = None) -> Trial:
        return Trial(seed, caught_by, time.monotonic() - began, trouble)

    with tempfile.TemporaryDirectory(prefix="seeded-") as folder:
        root = Path(folder)
        _copy(root)
        code, output = _pytest(root, seed.tests)
        if code != 0:
            return trial(None, f"without the bug the tests fail too:\n{output}")
        try:
            seed.apply(root)
        except ValueError as error:
            return trial(None, f"the patch does not fit: {error}")
        code, output = _pytest(root, seed.tests)
    if code == 0:
        return trial(None)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", output, flags=re.MULTILINE)
    if code != 1 or failed is None:  # it was not a test that failed: so nothing is proved
        return trial(None, f"pytest ended with {code}:\n{output}")
    return trial(failed[1])


def _copy(root: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "dist")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=unwanted)
        else:
            shutil.copy(source, root / name)
    (root / "seeded_guard.py").write_text(GUARD)


def _pytest(root: Path, tests: Sequence[str]) -> tuple[int, str]:
    """The exit code and what was printed, until the first failure."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-x", "-q", "-rfE", "--tb=short", "--color=no", "-p", "no:cacheprovider", "-p", "seeded_guard"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=root,
            env=env | {"COLUMNS": "400"},  # a name that is cut off can't be looked up
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MOST,
        )
    except subprocess.TimeoutExpired:
        return -1, f"not done after {MOST:.0f} s"
    return done.returncode, done.stdout


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.seeded", description="Does the suite catch every one?"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a part of a bug's name; default: all of them"
    )
    names = parser.parse_args(arguments).names
    seeds = [seed for seed in all_seeds() if not names or any(name in seed.name for name in names)]
    if not seeds:
        print(
            f"no bug has such a name; there are {', '.join(seed.name for seed in all_seeds())}",
            file=sys.stderr,
        )
        return 2
    width = max(len(seed.name) for seed in seeds)
    trials: list[Trial] = []
    print(f"{'bug':<{width}}  {'s':>5}  caught by", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for trial in pool.map(run, seeds):
            trials.append(trial)
            told = trial.caught_by or ("not found out, see below" if trial.trouble else "NOBODY: IT SURVIVED")
            print(f"{trial.seed.name:<{width}}  {trial.seconds:5.1f}  {told}", flush=True)
    for trial in trials:
        if not trial.is_caught:
            says = trial.trouble or f"SURVIVED {' '.join(trial.seed.tests)}\n{trial.seed.reason}"
            print(f"\n*** {trial.seed.name}: {says}")
    caught = sum(trial.is_caught for trial in trials)
    print(f"\n{caught} of {len(trials)} seeded bugs are caught")
    return 0 if caught == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
