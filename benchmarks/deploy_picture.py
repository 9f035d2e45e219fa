"""The picture of the deploys: every request, a panel for each way. Needs matplotlib, which is in the group ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, cast

from .deploy_figures import Call, Run
from .deploy_tables import SIDES, Runs
from .figures import percentile

__all__ = ["draw"]

# The palette of M. Okabe and K. Ito (2008), which colour-blind people can tell apart.
_OLD, _NEW, _FAILED = "#999999", "#0072B2", "#D55E00"
_DPI = 110
_RC: dict[str, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}
_BEFORE = 1.0
_SLICE = 0.25
_TOP = 1000.0
"""Milliseconds: what took longer is drawn here."""
_FAILED_AT = 1800.0


def draw(runs: Runs, path: Path) -> Path | None:
    """A panel for each side. ``None`` if matplotlib is not there."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    after = _shown_after(list(chain.from_iterable(runs.values())))
    with matplotlib.rc_context(cast("Any", _RC)):
        figure, panels = pyplot.subplots(
            len(runs),
            1,
            figsize=(10, 2.6 * len(runs) + 0.6),
            layout="constrained",
            sharex=True,
            squeeze=False,
        )
        for (side, taken), panel in zip(runs.items(), panels.flat, strict=True):
            _panel(panel, taken, SIDES[side][0], after)
        panels.flat[-1].set_xlabel(
            "seconds from the start of the new version; all deploys laid over each other"
        )
        panels.flat[-1].set_xlim(-_BEFORE, after)
        _legend(figure, panels.flat[0])
        raw = BytesIO()
        figure.savefig(raw, dpi=_DPI)
        pyplot.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A palette: a third of the size, in a repository that keeps every version.
    Image.open(raw).convert("RGB").quantize(192).save(path, optimize=True)
    return path


def _shown_after(runs: Sequence[Run]) -> float:
    """Seconds after its start that a deploy is shown for: till the next one at most."""
    gaps = [
        later.began - deploy.began
        for run in runs
        for deploy, later in zip(run.deploys, run.deploys[1:], strict=False)
    ]
    longest = max(time for run in runs for time in run.times) + 1.0
    return min([longest, *(gap - _BEFORE for gap in gaps)])


def _panel(panel: Any, runs: Sequence[Run], title: str, after: float) -> None:
    shown: list[tuple[float, Call, bool]] = []
    for run in runs:
        for number, deploy in enumerate(run.deploys):
            version = f"v{number + 2}"
            shown += [
                (call.at - deploy.began, call, call.note.by == version)
                for call in run.calls
                if -_BEFORE <= call.at - deploy.began < after
            ]
    answered = [each for each in shown if each[1].error is None]
    for is_new, color in ((False, _OLD), (True, _NEW)):
        moments = [(moment, min(call.latency * 1e3, _TOP)) for moment, call, new in answered if new == is_new]
        if moments:
            panel.plot(*zip(*moments), ".", color=color, ms=3, alpha=0.6, mew=0)
    failed = [moment for moment, call, _ in shown if call.error is not None]
    panel.plot(failed, [_FAILED_AT] * len(failed), "x", color=_FAILED, ms=6, mew=1.3)
    panel.plot(*_slices(answered, after), color="#000000", lw=1.4, drawstyle="steps-mid")
    time = median(time for run in runs for time in run.times)
    panel.axvspan(0.0, time, color="#000000", alpha=0.06, lw=0)
    total = sum(len(run.calls) for run in runs)
    lost = sum(run.errors.total() for run in runs)
    told = f"{lost:,} of {total:,} requests failed" if lost else f"none of {total:,} requests failed"
    panel.set_title(f"{title}: {told}, the old version gone after {time:.1f} s")
    panel.set(yscale="log", ylim=(8, 3000), ylabel="latency, ms")
    panel.set_yticks(
        [10, 20, 50, 100, 200, 500, _FAILED_AT], ["10", "20", "50", "100", "200", "500", "failed"]
    )
    panel.minorticks_off()


def _slices(answered: Sequence[tuple[float, Call, bool]], after: float) -> tuple[list[float], list[float]]:
    """The 99th percentile of each quarter of a second."""
    slices: dict[int, list[float]] = {}
    for moment, call, _ in answered:
        slices.setdefault(int((moment + _BEFORE) / _SLICE), []).append(call.latency * 1e3)
    whole = sorted(number for number in slices if (number + 1) * _SLICE - _BEFORE <= after)
    return (
        [(number + 0.5) * _SLICE - _BEFORE for number in whole],
        [min(percentile(slices[number], 0.99), _TOP) for number in whole],
    )


def _legend(figure: Any, panel: Any) -> None:
    panel.plot([], [], ".", color=_OLD, ms=9, label="answered by the old version")
    panel.plot([], [], ".", color=_NEW, ms=9, label="by the new one")
    panel.plot([], [], "x", color=_FAILED, ms=7, mew=1.5, label="failed")
    panel.plot([], [], color="#000000", lw=1.4, label="p99")
    panel.fill_between([], [], color="#000000", alpha=0.1, lw=0, label="the deploy")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.5)
