"""The pictures, from the data of the reports. Needs matplotlib, which is in the dependency group ``bench``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, cast

__all__ = ["PICTURES", "draw"]

# The palette of M. Okabe and K. Ito (2008), which colour-blind people can tell apart; and a mark for each, for print.
_STYLES: Mapping[str, tuple[str, str]] = {
    "peak_ewma": ("#0072B2", "o"),
    "the default": ("#0072B2", "o"),
    "round_robin": ("#D55E00", "s"),
    "random": ("#E69F00", "v"),
    "least_request": ("#009E73", "^"),
    "least_request, one pair": ("#CC79A7", "D"),
    "rendezvous": ("#CC79A7", "D"),
    "least loaded of all": ("#CC79A7", "D"),
    "plain EWMA": ("#56B4E9", "P"),
    "Prequal": ("#000000", "*"),
    "oracle": ("#999999", ""),
    "peak_ewma, 10 of them": ("#0072B2", "x"),
}
_DASHED = frozenset({"oracle", "peak_ewma, 10 of them"})
_DPI = 110
_RC: dict[str, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.titlesize": 11,
}


def draw(name: str, data: Mapping[str, Any], folder: Path) -> Path | None:
    """The picture of that experiment, ``sim-NAME.png``. ``None`` if it has none, or matplotlib is not there."""
    try:
        import matplotlib
    except ImportError:
        return None
    if name not in PICTURES:
        return None
    matplotlib.use("Agg")
    with matplotlib.rc_context(cast("Any", _RC)):
        figure = PICTURES[name](data)
        path = folder / f"sim-{name}.png"
        raw = BytesIO()
        figure.savefig(raw, dpi=_DPI)
        _pyplot().close(figure)
    from PIL import Image

    # A palette: a third of the size, in a repository that keeps every version.
    Image.open(raw).convert("RGB").quantize(96).save(path, optimize=True)
    return path


def _pyplot() -> Any:
    from matplotlib import pyplot

    return pyplot


def _bins(data: Mapping[str, Any]) -> Any:
    figure, (left, right) = _pyplot().subplots(1, 2, figsize=(10, 4), layout="constrained")
    for rule in dict.fromkeys(run["rule"] for run in data["runs"]):
        color, mark = _STYLES[rule]
        runs = [run for run in data["runs"] if run["rule"] == rule]
        means = [sum(run["maxima"]) / len(run["maxima"]) for run in runs]
        low = [mean - min(run["maxima"]) for mean, run in zip(means, runs)]
        high = [max(run["maxima"]) - mean for mean, run in zip(means, runs)]
        left.errorbar(
            [run["bins"] for run in runs],
            means,
            [low, high],
            fmt=mark,
            color=color,
            capsize=4,
            ms=7,
            label=rule,
        )
        points = [(load, share) for load, share in enumerate(runs[-1]["tail"]) if share > 0]
        right.plot(*zip(*points), mark, color=color, ms=7)
    lines = {
        "1": ("-", "one choice, theory"),
        "2": ("--", "two choices, theory"),
        "4": (":", "four choices, theory"),
    }
    for choices, (style, label) in lines.items():
        known = data["theory"][choices]
        sizes = [int(size) for size in known["maxima"]]
        left.plot(sizes, [mean for mean, _, _ in known["maxima"].values()], style, color="#444444", lw=1.2)
        shares = [(load, share) for load, share in enumerate(known["tail"]) if share > 1e-9]
        right.plot(*zip(*shares), style, color="#444444", lw=1.2, label=label)
    left.set(
        xscale="log", xlabel="bins n, and as many balls", ylabel="balls in the fullest bin", ylim=(0, 13)
    )
    left.set_title("the fullest bin (mean, least and most of the runs)")
    left.legend(loc="upper left")
    bins = max(run["bins"] for run in data["runs"])
    right.set(yscale="log", xlabel="balls", ylabel="share of the bins with so many or more", ylim=(5e-8, 2))
    right.set_xlim(-0.3, 10.5)
    right.set_title(f"all bins, n = {bins:,}")
    right.legend(loc="upper right")
    return figure


def _queues(data: Mapping[str, Any]) -> Any:
    figure, axes = _pyplot().subplots(figsize=(6, 4), layout="constrained")
    lines = (
        ("random", "-", "M/M/1", 0),
        ("least_request, one pair", "--", "two choices", 0),
        ("least_request", ":", "four choices", 0),
    )
    for rule, style, theory, side in lines:
        runs = [run for run in data["runs"] if run["rule"] == rule]
        loads = [run["load"] for run in runs]
        axes.plot(
            loads,
            [run["known"][side] for run in runs],
            style,
            color="#444444",
            lw=1.2,
            label=f"{theory}, theory",
        )
        color, mark = _STYLES[rule]
        axes.plot(loads, [run["found"] for run in runs], mark, color=color, ms=7, label=rule)
    axes.set(xlabel="load", ylabel="mean time of a request,\nin mean services", ylim=(0, None))
    axes.set_title("100 servers, one worker each")
    axes.legend(loc="upper left")
    return figure


def _selection(data: Mapping[str, Any]) -> Any:
    loads, shapes = data["loads"], data["shapes"]
    figure, rows = _pyplot().subplots(
        2,
        len(shapes),
        figsize=(11, 6.6),
        layout="constrained",
        sharex=True,
        sharey="row",
        height_ratios=(5, 2),
    )
    lines: dict[str, Any] = {}
    for (name, found), top, bottom in zip(shapes.items(), rows[0], rows[1]):
        for rule, summaries in found.items():
            if rule not in _STYLES:
                continue
            color, mark = _STYLES[rule]
            style = {
                "color": color,
                "marker": mark or None,
                "ls": "--" if rule in _DASHED else "-",
                "ms": 7,
                "lw": 2.2 if rule == "peak_ewma" else 1.3,
                "zorder": 3 if rule == "peak_ewma" else 2,
            }
            (line,) = top.plot(loads, [each["p99"] for each in summaries], **style)
            bottom.plot(loads, [100 * each["errors"] for each in summaries], **style)
            lines.setdefault(rule, line)
        top.set_title(data["titles"][name])
        top.axvline(1.0, color="#666666", lw=1, ls=":")
        bottom.axvline(1.0, color="#666666", lw=1, ls=":")
        bottom.set_xlabel("load, of what servers are promised")
    rows[0][0].set(yscale="log", ylabel="p99 latency, seconds", ylim=(0.15, 5.6))
    rows[0][0].set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    rows[0][0].minorticks_off()
    rows[1][0].set(ylabel="failed, %", ylim=(-0.5, None))
    rows[1][0].set_xticks([0.75, 1.0, 1.25, 1.5, 1.75], ["75 %", "100 %", "125 %", "150 %", "175 %"])
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=5)
    return figure


def _standing(data: Mapping[str, Any]) -> Any:
    names = [name.removesuffix("/the default") for name in data if name.endswith("/the default")]
    names = [name for name in names if not name.startswith("sizes/")]
    rules = ("the default", "least_request", "round_robin")
    figure, axes = _pyplot().subplots(figsize=(9.5, 5.2), layout="constrained")
    for place, name in enumerate(reversed(names)):
        for offset, rule in zip((0.22, 0.0, -0.22), rules):
            color, mark = _STYLES[rule]
            found, y = data[f"{name}/{rule}"], place + offset
            axes.plot([found["p50"], found["p999"]], [y, y], color=color, lw=1.2, alpha=0.6)
            axes.plot(found["p50"], y, "|", color=color, ms=9, mew=2)
            axes.plot(found["p99"], y, mark, color=color, ms=7)
            axes.plot(found["p999"], y, mark, color=color, ms=7, mfc="white")
            if found["errors"]:
                axes.annotate(
                    f" {found['errors']:.2%} failed",
                    (found["p999"], y),
                    xytext=(7, -3),
                    textcoords="offset points",
                    fontsize=8,
                )
    for rule in rules:
        color, mark = _STYLES[rule]
        axes.plot([], [], mark, color=color, ms=7, label=rule)
    axes.plot([], [], "|", color="#666666", ms=9, mew=2, label="p50")
    axes.plot([], [], "o", color="#666666", label="p99")
    axes.plot([], [], "o", color="#666666", mfc="white", label="p99.9")
    axes.set(xscale="log", xlabel="latency as the caller sees it, seconds", xlim=(0.015, 9))
    axes.set_xticks(
        [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5], ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]
    )
    axes.minorticks_off()
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=6)
    return figure


def _stories(data: Mapping[str, Any]) -> Any:
    stories = list(dict.fromkeys(name.partition(": ")[0] for name in data))
    figure, rows = _pyplot().subplots(2, 2, figsize=(10, 6), layout="constrained", sharey=True)
    lines: dict[str, Any] = {}
    for story, axes in zip(stories, rows.flat):
        failed, span = 0, (0.0, 0.0)
        for rule, (color, style, width) in _STORY_LINES.items():
            found = data.get(f"{story}: {rule}")
            if found is None:
                continue
            moments = [2.0 * index + 1.0 for index in range(len(found["p99"]))]
            (line,) = axes.plot(moments, found["p99"], style, color=color, lw=width)
            lines.setdefault(rule, line)
            if rule in _STYLES:
                failed += found["failed"]
                span = found["begin"], found["end"]
                axes.set_xlim(moments[0], moments[-1])
        axes.axvspan(*span, color="#000000", alpha=0.07, lw=0)
        axes.set_title(f"{story}: {failed or 'no'} requests failed")
        axes.set(yscale="log", ylim=(0.08, 5))
        axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
        axes.minorticks_off()
    for axes in rows[:, 0]:
        axes.set_ylabel("p99 of 2 s, seconds\n(failed: 3 s)")
    for axes in rows[1]:
        axes.set_xlabel("seconds")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
    return figure


_STORY_LINES = {
    "random": ("#E69F00", "-", 1.2),
    "round_robin": ("#D55E00", "-", 1.2),
    "rendezvous": ("#CC79A7", "-", 1.2),
    "least_request": ("#009E73", "-", 1.2),
    "peak_ewma": ("#0072B2", "-", 2.2),
    "peak_ewma, nobody drains, no retries or ejection": ("#000000", ":", 1.6),
}

PICTURES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "bins": _bins,
    "queues": _queues,
    "selection": _selection,
    "standing": _standing,
    "stories": _stories,
}
