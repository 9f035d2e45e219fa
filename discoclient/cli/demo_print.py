"""Tells the story of the demo to a person: on a terminal with bars that grow, elsewhere in plain lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from time import monotonic

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .demo_measures import Act, Call, Claim
from .demo_roster import Roster

__all__ = ["Printer"]

BAR = 40
INDENT = 12
COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_magenta", "bright_cyan")
REFRESH = 8


class Printer:
    """A `Teller` on *console*."""

    def __init__(self, console: Console) -> None:
        self._console = console
        fancy = (console.encoding or "").lower().startswith("utf")
        self._tick, self._cross, self._block = ("✓", "✗", "█") if fancy else ("+", "x", "#")
        self._live: Live | None = None
        self._is_open = False
        self._began = 0.0
        self._calls: Sequence[Call] = ()
        self._shown: set[int] = set()
        self._places: dict[int, int] = {}
        self._roster: Roster | None = None

    def introduce(self, name: str, text: str) -> None:
        if not self._is_open:
            self._print(Text("discoclient: what services and callers survive\n", "bold"))
            self._is_open = True
        self._print(Text.assemble((f"  {name:<10}", "dim"), text))

    def begin(self, number: int, title: str, calls: Sequence[Call], roster: Roster) -> None:
        self._began = monotonic()
        self._calls, self._roster = calls, roster
        self._shown = set(roster.numbers)
        self._print(Text.assemble("\n", (f"{number}. {title}", "bold")))
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._so_far, console=self._console, refresh_per_second=REFRESH, transient=True
            )
            self._live.start()

    def say(self, text: str, at: float | None = None) -> None:
        after = (monotonic() if at is None else at) - self._began
        indented = text.replace("\n", f"\n{' ' * INDENT}")
        self._print(Text.assemble((f"{max(0.0, after):8.2f} s  ", "dim"), indented))

    def end(self, act: Act) -> None:
        self.close()
        self._print(self._bars(act.calls(self._calls)))

    def close(self) -> None:
        """Leave the terminal as it was, also in the middle of an act."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def judge(self, claims: Sequence[Claim], seconds: float) -> None:
        """The summary."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
        table.add_column("", width=1)
        table.add_column("What had to hold")
        table.add_column("What was seen")
        for claim in claims:
            mark = Text(self._tick, "bold green") if claim.held else Text(self._cross, "bold red")
            table.add_row(mark, Text(claim.text), Text(claim.seen, "" if claim.held else "red"))
        self._print(Group("", table))
        self._print("")
        held = sum(claim.held for claim in claims)
        if held == len(claims):
            self._print(Text(f"All {held} claims held, in {seconds:.0f} s.", "bold green"))
        else:
            self._print(Text(f"{len(claims) - held} of {len(claims)} claims did NOT hold.", "bold red"))

    # ---- parts

    def _so_far(self) -> RenderableType:
        began = self._began
        return self._bars([call for call in list(self._calls) if call.began >= began])

    def _bars(self, calls: Sequence[Call]) -> RenderableType:
        """A bar for each instance that is there, or was when the act began; and a line of figures."""
        roster = self._roster
        listed = roster.numbers if roster is not None else frozenset[int]()
        counts = Counter(call.number for call in calls if call.number is not None)
        self._shown |= listed | set(counts)
        longest = max(counts.values(), default=1)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column(justify="right")
        table.add_column(width=BAR)
        table.add_column(justify="right")
        table.add_column()
        for number in sorted(self._shown):
            place = self._places.setdefault(number, len(self._places))
            name = roster.name(number) if roster is not None else ""
            width = max(1, round(counts[number] / longest * BAR)) if counts[number] else 0
            colour = COLOURS[place % len(COLOURS)]
            table.add_row(
                Text(str(number), colour),
                Text(self._block * width, colour),
                str(counts[number]),
                Text(name if number in listed else f"{name}, not registered", "dim"),
            )
        return Padding(Group(table, self._figures(calls)), (0, 0, 0, INDENT), expand=False)

    def _figures(self, calls: Sequence[Call]) -> Text:
        failed = sum(bool(call.error) for call in calls)
        latencies = [call.ended - call.began for call in calls if not call.error]
        text = Text.assemble(
            f"{len(calls)} requests, ", (f"{failed} failed", "bold red" if failed else "bold green")
        )
        if latencies:
            text.append(
                f"; median {median(latencies) * 1000:.1f} ms, slowest {max(latencies) * 1000:.0f} ms", "dim"
            )
        return text

    def _print(self, what: RenderableType) -> None:
        self._console.print(what, highlight=False, soft_wrap=isinstance(what, Text))
