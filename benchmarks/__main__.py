"""``python -m benchmarks [NAME...] [--quick]``: measure, and print each figure beside its reference.

What is measured is also written as JSON, section by section, and drawn in the end: ``build/bench/report.json`` and
``report.png``. The report before that becomes ``previous.json``, for `benchmarks.compare`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from discoclient import __version__
from discoclient.dev import EtcdNotFound, find_etcd

from . import clients, convergence, deploy, idle, large, overhead, pick, scale, sharing, sidecar, trouble
from .at_once import run_at_once
from .figures import tables
from .report_picture import draw
from .trouble_proxies import find, version

__all__ = ["BENCHMARKS", "PREVIOUS", "REPORT", "describe", "environment", "main", "render"]

BENCHMARKS: dict[str, ModuleType] = {
    "clients": clients,
    "overhead": overhead,
    "pick": pick,
    "convergence": convergence,
    "large": large,
    "idle": idle,
    "sharing": sharing,
    "trouble": trouble,
    "deploy": deploy,
    "sidecar": sidecar,
    "scale": scale,
}
REPORT = Path("build/bench/report.json")
PREVIOUS = REPORT.with_name("previous.json")
_DISTRIBUTIONS = (
    *("httpx", "httpcore", "h11", "anyio", "httptools", "uvloop", "grpclib", "h2", "protobuf"),
    *("httpx2", "aiohttp", "httpx-aiohttp", "pyreqwest", "requests"),
)
_PROGRAMS = ("nginx", "haproxy")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes: to see that it works, not to quote"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"write it there, and the picture beside it (default: {REPORT})",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    try:
        report = _prepare(options.json)
    except OSError as error:  # now, and not when everything is measured
        parser.error(f"--json: {error}")
    results: dict[str, Any] = {"environment": environment(), "quick": options.quick, "benchmarks": {}}
    print(describe(results), flush=True)
    for name, sections in _measure(options.names or list(BENCHMARKS), quick=options.quick):
        results["benchmarks"].setdefault(name, []).extend(sections)
        for section in sections:
            print(f"\n{render(section)}", flush=True)
        report.write_text(
            json.dumps(results, indent=1) + "\n"
        )  # an hour's work is not lost with its last minute
    picture = draw(results, report.with_suffix(".png"))
    print(f"\nWritten: {report}{f' and {picture}' if picture else ''}")
    return 0


def _measure(names: Sequence[str], *, quick: bool) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The sections of each benchmark, as they come. In a quick run all but the first are run at the same time."""
    one_by_one = names[:1] if quick else names
    for name in one_by_one:
        began = time.monotonic()
        for section in BENCHMARKS[name].run(quick=quick):
            yield name, [section.to_json()]
        _took(name, time.monotonic() - began)
    for done in run_at_once(names[len(one_by_one) :]):
        yield done.name, done.sections
        _took(done.name, done.seconds)


def _took(name: str, seconds: float) -> None:
    print(f"{name} took {seconds:.0f} s", file=sys.stderr, flush=True)


def _prepare(chosen: Path | None) -> Path:
    """The file for the results. Whoever has not *chosen* one keeps the last report, and the one before."""
    report = chosen or REPORT
    if chosen is None:
        report.parent.mkdir(parents=True, exist_ok=True)
        if report.exists() and report.stat().st_size:
            report.replace(PREVIOUS)
    report.touch()
    return report


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
        "programs": {name: version(path) for name in _PROGRAMS if (path := find(name))},
        "versions": versions,
    }


def describe(results: Mapping[str, Any]) -> str:
    """One line, for people."""
    found = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    programs = "".join(f", {name} {version}" for name, version in found.get("programs", {}).items())
    quick = "; --quick: not to be quoted" if results["quick"] else ""
    return (
        f"discoclient {found['discoclient']}, {found['python']}, {found['system']}, {found['cores']} cores "
        f"(load before: {found['load_before']:g}), etcd {found['etcd']}{programs}; {versions}{quick}"
    )


def render(section: dict[str, Any]) -> str:
    lines = [section["title"], "-" * len(section["title"])]
    for number, cells in enumerate(tables(section)):
        lines += [*([""] if number else []), *_aligned(cells)]
    return "\n".join([*lines, *section["notes"]])


def _aligned(cells: list[tuple[str, ...]]) -> list[str]:
    """Columns under each other: names and words to the left, medians and spreads to the right."""
    cells = [tuple(cell.replace("**", "") for cell in line) for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_list = cells[0][1:] == ("median", "spread", "unit", "aim")
    to_right = range(1, 3) if is_list else range(1, len(widths))
    return [
        "  ".join(
            cell.rjust(width) if place in to_right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that nothing is left lying about
    sys.exit(main())
