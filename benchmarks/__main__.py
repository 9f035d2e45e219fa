"""``python -m benchmarks [NAME...] [--quick] [--json FILE]``: measure, and print each figure beside its reference."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discoclient import __version__
from discoclient.dev import EtcdNotFound, find_etcd

from . import convergence, deploy, idle, large, overhead, pick, sidecar, trouble
from .figures import table

BENCHMARKS = {
    "convergence": convergence,
    "overhead": overhead,
    "pick": pick,
    "large": large,
    "idle": idle,
    "trouble": trouble,
    "deploy": deploy,
    "sidecar": sidecar,
}
_DISTRIBUTIONS = ("httpx", "httpcore", "h11", "anyio", "grpclib", "h2", "protobuf", "uvloop", "httptools")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes: to see that it works, not to quote"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything there, for `benchmarks.report`"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.json:
        try:
            options.json.touch()
        except OSError as error:  # now, and not when everything is measured
            parser.error(f"--json: {error}")
    results: dict[str, Any] = {"environment": environment(), "quick": options.quick, "benchmarks": {}}
    print(describe(results), flush=True)
    for name in options.names or BENCHMARKS:
        began = time.monotonic()
        sections = results["benchmarks"][name] = []
        for section in BENCHMARKS[name].run(quick=options.quick):
            sections.append(section.to_json())
            print(f"\n{render(sections[-1])}", flush=True)
        print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def environment() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    versions = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        etcd = find_etcd().version
    except EtcdNotFound:
        etcd = "none"
    return {
        "discoclient": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "etcd": etcd,
        "versions": versions,
    }


def describe(results: dict[str, Any]) -> str:
    """One line, for people."""
    found = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    quick = "; --quick: not to be quoted" if results["quick"] else ""
    return (
        f"discoclient {found['discoclient']}, {found['python']}, {found['system']}, {found['cores']} cores "
        f"(load before: {found['load_before']:g}), etcd {found['etcd']}; {versions}{quick}"
    )


def render(section: dict[str, Any]) -> str:
    cells = table(section)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [section["title"], "-" * len(section["title"])]
    for name, *numbers in cells:
        right = (number.rjust(width) for number, width in zip(numbers[:2], widths[1:3], strict=True))
        left = (word.ljust(width) for word, width in zip(numbers[2:], widths[3:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *right, *left]).rstrip())
    return "\n".join([*lines, *section["notes"]])


if __name__ == "__main__":
    sys.exit(main())
