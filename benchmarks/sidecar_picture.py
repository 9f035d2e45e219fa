"""The picture of the load: what each side makes of one core, and what that costs. Needs matplotlib (group ``bench``)."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, cast

from .figures import format_number
from .sidecar_load import WORKLOADS, Runs
from .sidecar_sides import SIDES

__all__ = ["draw"]

# The palette of M. Okabe and K. Ito (2008), which colour-blind people can tell apart.
_COLORS = {
    "direct": "#BBBBBB",
    "nginx": "#009E73",
    "haproxy": "#E69F00",
    "envoy": "#CC79A7",
    "stream": "#56B4E9",
    "sidecar": "#0072B2",
    "sidecar_tcp": "#D55E00",
}
_DPI = 110
_RC: dict[str, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def draw(runs: Mapping[str, Runs], path: Path) -> Path | None:
    """A row of two panels for each workload of *runs*, by its name. ``None`` if matplotlib is not there."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    with matplotlib.rc_context(cast("Any", _RC)):
        height = sum(0.32 * len(taken) + 0.75 for taken in runs.values()) + 0.2
        figure, panels = pyplot.subplots(
            len(runs),
            2,
            figsize=(10, height),
            layout="constrained",
            squeeze=False,
            gridspec_kw={"height_ratios": [len(taken) for taken in runs.values()]},
        )
        for (name, taken), (left, right) in zip(runs.items(), panels, strict=True):
            title = WORKLOADS[name].title
            _bars(
                left,
                {side: [run.load.rate for run in each] for side, each in taken.items()},
                f"{title}: requests/s",
            )
            _bars(
                right,
                {
                    side: [0.0 if run.is_direct else run.cpu_each for run in each]
                    for side, each in taken.items()
                },
                "CPU of the proxy, us per request",
            )
            right.set_yticklabels([])
        raw = BytesIO()
        figure.savefig(raw, dpi=_DPI)
        pyplot.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A palette: a third of the size, in a repository that keeps every version.
    Image.open(raw).convert("RGB").quantize(96).save(path, optimize=True)
    return path


def _bars(panel: Any, values: Mapping[str, list[float]], title: str) -> None:
    """The median of each side, and from the least to the most as a line on it."""
    for place, (side, rounds) in enumerate(values.items()):
        middle = median(rounds)
        spread = [[middle - min(rounds)], [max(rounds) - middle]]
        panel.barh(place, middle, color=_COLORS[side], height=0.72)
        if middle:
            panel.errorbar(middle, place, xerr=spread, color="#000000", lw=1, capsize=2)
            panel.annotate(
                format_number(middle),
                (max(rounds), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    most = max(max(rounds) for rounds in values.values())
    panel.set_yticks(range(len(values)), [SIDES[side][0] for side in values])
    panel.set_xlim(0, most * 1.16 or 1)
    panel.invert_yaxis()
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.set_title(title)
