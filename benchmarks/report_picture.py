"""The picture of a report: how far the aims are met, and the clients beside each other. Needs matplotlib (group ``bench``).

It is drawn from the JSON alone. Nothing is drawn behind it and its grey is in the middle, so that it can be read on white and
on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

from .figures import format_number

__all__ = ["Aim", "Bar", "aims", "bars", "draw"]

# The palette of M. Okabe and K. Ito (2008), which colour-blind people can tell apart.
_OURS, _NGINX, _OTHER, _MISSED = "#0072B2", "#009E73", "#8D949E", "#E69F00"
_GREY = "#7D858F"
_DPI = 110
_AIMED = ("clients", "overhead")
_PANELS = (
    (
        ("Async, 32 in flight", "requests/s", "more is better"),
        ("Async, 32 in flight", "p99", "ms, less is better"),
    ),
    (
        ("Async, 1 in flight", "p50", "ms, less is better"),
        ("Async, 1 in flight", "CPU", "us/request, less is better"),
    ),
    (
        ("Sync, 1 thread", "requests/s", "more is better"),
        ("Sync, 16 threads", "requests/s", "more is better"),
    ),
)
"""Section, figure, how to read it; the two in a line have the same sides."""
_RC: dict[str, Any] = {
    "font.size": 10,
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "grid.color": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


class Aim(NamedTuple):
    name: str
    factor: float
    """How many times better than the aim; below 1 it is missed."""
    told: str


class Bar(NamedTuple):
    name: str
    median: float
    low: float
    high: float
    color: str


def aims(results: Mapping[str, Any]) -> list[Aim]:
    """Those that are set on what compares two sides."""
    found = []
    for benchmark in _AIMED:
        for section in results["benchmarks"].get(benchmark, ()):
            for row in section["rows"]:
                if (
                    row["role"] == "compared" and row["aim"] and row["median"] > 0
                ):  # a logarithm is taken of it
                    is_least = row["sense"] == ">="
                    factor = row["median"] / row["aim"] if is_least else row["aim"] / row["median"]
                    unit = "x" if row["unit"] == "times" else f" {row['unit'].partition('/')[0]}"
                    told = (
                        f"{format_number(row['median'])}{unit}, "
                        f"aim: {'at least' if is_least else 'at most'} {format_number(row['aim'])}{unit}"
                    )
                    name = row["name"] if benchmark == "clients" else section["title"]
                    found.append(Aim(name, factor, told))
    return found


def bars(results: Mapping[str, Any], title: str, figure: str) -> list[Bar]:
    """One figure of a section of the clients, a bar for each side."""
    for section in results["benchmarks"].get("clients", ()):
        if section["title"] == title:
            return [
                Bar(
                    row["name"].removesuffix(f": {figure}"),
                    row["median"],
                    row["low"],
                    row["high"],
                    _OURS if row["role"] == "ours" else _NGINX if "nginx" in row["name"] else _OTHER,
                )
                for row in section["rows"]
                if row["role"] != "compared" and row["name"].endswith(f": {figure}")
            ]
    return []


def draw(results: Mapping[str, Any], path: Path) -> Path | None:
    """``None`` if matplotlib is not there, or nothing that could be drawn was measured."""
    try:
        import matplotlib
    except ImportError:
        return None
    aimed = aims(results)
    lines = [[(panel, bars(results, *panel[:2])) for panel in line] for line in _PANELS]
    if not aimed or not all(found for line in lines for _, found in line):
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    heights = [0.21 * len(aimed) + 0.65, *(0.21 * len(line[0][1]) + 0.65 for line in lines)]
    with matplotlib.rc_context(cast("Any", _RC)):
        figure = pyplot.figure(figsize=(10, sum(heights)), layout="constrained")
        # a figure of its own for each line: else the longest name indents all of them
        first, *others = cast("Any", figure.subfigures(len(heights), 1, height_ratios=heights))
        _aims(first.subplots(), aimed)
        for part, line in zip(others, lines, strict=True):
            for panel, ((section, name, hint), found) in zip(
                part.subplots(1, 2, sharey=True), line, strict=True
            ):
                _bars(panel, f"{section}: {name} ({hint})", found)
            panel.tick_params("y", length=0)
        raw = BytesIO()
        figure.savefig(raw, dpi=_DPI, transparent=True)
        pyplot.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A palette: a third of the size, in a repository that keeps every version.
    Image.open(raw).quantize(128, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    return path


def _aims(panel: Any, found: Sequence[Aim]) -> None:
    """A bar from the aim, which is the line in the middle, to what was measured."""
    for place, aim in enumerate(found):
        color = _OURS if aim.factor >= 1 else _MISSED
        panel.barh(place, aim.factor - 1, left=1.0, color=color, height=0.62)
        panel.annotate(
            aim.told,
            (max(aim.factor, 1.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    panel.axvline(1.0, color=_GREY, lw=1.2)
    factors = [aim.factor for aim in found]
    panel.set_xscale("log")
    panel.set_xlim(min(0.5, *factors) / 1.1, max(2.0, *factors) * 4)
    ticks = [
        each for each in (0.1, 0.2, 0.5, 1, 2, 5, 10) if panel.get_xlim()[0] <= each <= panel.get_xlim()[1]
    ]
    panel.set_xticks(ticks, ["the aim" if each == 1 else f"{each:g}x" for each in ticks])
    panel.minorticks_off()
    panel.set_yticks(range(len(found)), [aim.name for aim in found], fontsize=8.5)
    panel.set_ylim(len(found) - 0.5, -0.5)
    met = sum(aim.factor >= 1 for aim in found)
    panel.set_title(f"Aims: {met} of {len(found)} met (to the right is better)")


def _bars(panel: Any, title: str, found: Sequence[Bar]) -> None:
    """The median of each side, and from the least to the most as a line on it."""
    for place, bar in enumerate(found):
        spread = [[bar.median - bar.low], [bar.high - bar.median]]
        panel.barh(place, bar.median, color=bar.color, height=0.66)
        panel.errorbar(bar.median, place, xerr=spread, color=_GREY, lw=1, capsize=2)
        panel.annotate(
            format_number(bar.median),
            (bar.high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    panel.set_yticks(range(len(found)), [bar.name for bar in found], fontsize=8.5)
    panel.set_xlim(0, max(bar.high for bar in found) * 1.18)
    panel.set_ylim(len(found) - 0.5, -0.5)
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.set_title(title)
