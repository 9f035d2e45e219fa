"""The life of a service under ``disco run``, phase by phase, in virtual time."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from discoclient.serving.life import DONE, KILLED, NO_REGISTRY, NOT_READY, Act, Event, Life, Phase, Terms

START = 1000.0
TAKING_OVER = Terms(replace=True, bake=5.0)
PLAIN = Terms()

What: TypeAlias = Event | str | float | int
"""An event; ``clean`` or ``unclean``, the end of a drain; a float, seconds that pass; an int, the exit code."""


class Living:
    """A life, the time, and all that was asked for."""

    def __init__(self, terms: Terms = PLAIN) -> None:
        self.now = START
        self.life = Life(terms, now=START)
        self.acts: list[Act] = []
        self.last: list[Act] = []

    def play(self, *script: What) -> Living:
        for what in script:
            self.last = self.step(what)
            self.acts += self.last
        return self

    def step(self, what: What) -> list[Act]:
        match what:
            case Event():
                return self.life.handle(what, self.now, reason="GET /health answered 503")
            case str():
                return self.life.drained(what == "clean", self.now)
            case float():
                return self.wait(what)
            case _:
                return self.life.exited(what, self.now)

    def wait(self, seconds: float, doubt: str = "") -> list[Act]:
        end, acts = self.now + seconds, []
        while self.life.wake_at is not None and self.life.wake_at <= end:
            self.now = self.life.wake_at
            acts += self.life.tick(self.now, doubt=doubt, interval=2.0)
        self.now = end
        return acts


READY = (Event.WELL, Event.REGISTERED)
LEAVING: dict[Phase, tuple[Terms, tuple[What, ...]]] = {
    Phase.WAITING: (PLAIN, ()),
    Phase.REGISTERING: (PLAIN, (Event.WELL,)),
    Phase.BAKING: (TAKING_OVER, READY),
    Phase.SERVING: (PLAIN, READY),
    Phase.DRAINING: (PLAIN, (*READY, Event.STOP)),
    Phase.STOPPING: (PLAIN, (*READY, Event.STOP, "clean")),
    Phase.LEAVING: (PLAIN, (*READY, Event.STOP, "clean", 0)),
    Phase.OVER: (PLAIN, (*READY, Event.STOP, "clean", 0, Event.LEFT)),
}


def in_phase(phase: Phase, *, taking_over: bool = False) -> Living:
    terms, script = LEAVING[phase]
    living = Living(TAKING_OVER if taking_over else terms).play(*script)
    assert living.life.phase is phase
    living.acts = []
    return living


# ---- the whole table

P, E, A = Phase, Event, Act
TABLE: dict[Phase, dict[What, tuple[Phase, list[Act]]]] = {
    P.WAITING: {
        E.WELL: (P.REGISTERING, [A.REGISTER]),
        E.UNWELL: (P.WAITING, []),
        E.STOP: (P.STOPPING, [A.TERMINATE]),
        E.RETIRE: (P.STOPPING, [A.TERMINATE]),
        7: (P.LEAVING, [A.LEAVE]),
        "clean": (P.WAITING, []),
        59.9: (P.WAITING, []),
        60.0: (P.STOPPING, [A.TERMINATE]),
    },
    P.REGISTERING: {
        E.WELL: (P.REGISTERING, []),
        E.UNWELL: (P.REGISTERING, []),
        E.OBJECTION: (P.REGISTERING, []),
        E.REGISTERED: (P.SERVING, []),
        E.REFUSED: (P.STOPPING, [A.TERMINATE]),
        E.STOP: (P.REGISTERING, []),
        E.RETIRE: (P.REGISTERING, []),
        7: (P.REGISTERING, []),
        "clean": (P.REGISTERING, []),
        3600.0: (P.REGISTERING, []),
    },
    P.BAKING: {
        E.WELL: (P.BAKING, []),
        E.UNWELL: (P.DRAINING, [A.SAY_UNREADY, A.DRAIN]),
        E.OBJECTION: (P.DRAINING, [A.DRAIN]),
        E.STOP: (P.DRAINING, [A.DRAIN]),
        E.RETIRE: (P.DRAINING, [A.DRAIN]),
        7: (P.LEAVING, [A.LEAVE]),
        "clean": (P.BAKING, []),
        4.9: (P.BAKING, []),
        5.0: (P.SERVING, [A.REPLACE]),
        3600.0: (P.SERVING, [A.REPLACE]),
    },
    P.SERVING: {
        E.WELL: (P.SERVING, [A.SAY_READY]),
        E.UNWELL: (P.SERVING, [A.SAY_UNREADY]),
        E.OBJECTION: (P.SERVING, []),
        E.STOP: (P.DRAINING, [A.DRAIN]),
        E.RETIRE: (P.DRAINING, [A.DRAIN]),
        7: (P.LEAVING, [A.LEAVE]),
        "clean": (P.SERVING, []),
        3600.0: (P.SERVING, []),
    },
    P.DRAINING: {
        E.WELL: (P.DRAINING, []),
        E.UNWELL: (P.DRAINING, []),
        E.OBJECTION: (P.DRAINING, []),
        E.STOP: (P.DRAINING, [A.HURRY]),
        E.RETIRE: (P.DRAINING, []),
        7: (P.LEAVING, [A.LEAVE]),
        "clean": (P.STOPPING, [A.TERMINATE]),
        "unclean": (P.STOPPING, [A.TERMINATE]),
        3600.0: (P.DRAINING, []),
    },
    P.STOPPING: {
        E.WELL: (P.STOPPING, []),
        E.UNWELL: (P.STOPPING, []),
        E.OBJECTION: (P.STOPPING, []),
        E.STOP: (P.STOPPING, []),
        E.RETIRE: (P.STOPPING, []),
        7: (P.LEAVING, [A.LEAVE]),
        "clean": (P.STOPPING, []),
        4.9: (P.STOPPING, []),
        5.0: (P.STOPPING, [A.KILL]),
        3600.0: (P.STOPPING, [A.KILL]),
    },
    P.LEAVING: {
        E.WELL: (P.LEAVING, []),
        E.UNWELL: (P.LEAVING, []),
        E.OBJECTION: (P.LEAVING, []),
        E.STOP: (P.LEAVING, []),
        E.RETIRE: (P.LEAVING, []),
        E.LEFT: (P.OVER, []),
        "clean": (P.LEAVING, []),
        3600.0: (P.LEAVING, []),
    },
    P.OVER: {
        E.WELL: (P.OVER, []),
        E.UNWELL: (P.OVER, []),
        E.STOP: (P.OVER, []),
        E.RETIRE: (P.OVER, []),
        "clean": (P.OVER, []),
        3600.0: (P.OVER, []),
    },
}
CASES = [(phase, what, *then) for phase, row in TABLE.items() for what, then in row.items()]


@pytest.mark.parametrize(
    ("phase", "what", "then", "acts"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_each_event_in_each_phase_has_one_consequence(
    phase: Phase, what: What, then: Phase, acts: list[Act]
) -> None:
    living = in_phase(phase).play(what)
    assert (living.life.phase, living.last) == (then, acts)


# ---- exit codes


@pytest.mark.parametrize(
    ("script", "code"),
    [
        # it was asked to end
        ((Event.STOP, 143, Event.LEFT), DONE),
        ((Event.WELL, Event.STOP, Event.REGISTERED, "clean", 143, Event.LEFT), DONE),
        ((Event.WELL, Event.STOP, Event.REFUSED, 143, Event.LEFT), DONE),
        ((*READY, Event.STOP, "clean", 143, Event.LEFT), DONE),
        ((*READY, Event.RETIRE, "clean", 143, Event.LEFT), DONE),
        ((*READY, Event.STOP, "clean", 0, Event.LEFT), DONE),
        ((*READY, Event.STOP, "clean", 7, Event.LEFT), DONE),
        # the drain was not clean: the command's own
        ((*READY, Event.STOP, "unclean", 143, Event.LEFT), 143),
        ((*READY, Event.STOP, "unclean", 0, Event.LEFT), DONE),
        ((*READY, Event.STOP, 7, Event.LEFT), 7),
        # it had to be killed
        ((*READY, Event.STOP, "clean", 5.0, 137, Event.LEFT), KILLED),
        ((*READY, Event.STOP, Event.STOP, Event.STOP, 137, Event.LEFT), KILLED),
        ((Event.STOP, 5.0, 137, Event.LEFT), KILLED),
        # it ended by itself
        ((*READY, 7, Event.LEFT), 7),
        ((*READY, 0, Event.LEFT), DONE),
        ((*READY, 137, Event.LEFT), 137),
        # it never got so far
        ((7, Event.LEFT), NOT_READY),
        ((0, Event.LEFT), NOT_READY),
        ((60.0, 143, Event.LEFT), NOT_READY),
        ((60.0, 5.0, 137, Event.LEFT), NOT_READY),
        # it ended while it was being registered: it was ready, and nobody was to be taken over from
        ((Event.WELL, 7, Event.REGISTERED, Event.LEFT), 7),
        ((Event.WELL, 7, Event.REFUSED, Event.LEFT), NOT_READY),
        ((Event.WELL, Event.REFUSED, 143, Event.LEFT), NO_REGISTRY),
        ((Event.WELL, Event.REFUSED, 5.0, 137, Event.LEFT), NO_REGISTRY),
    ],
)
def test_the_exit_code_says_how_it_ended(script: tuple[What, ...], code: int) -> None:
    living = Living().play(*script)
    assert living.life.phase is Phase.OVER
    assert living.life.code == code
    assert living.acts[-1] is Act.LEAVE


@pytest.mark.parametrize(
    "script",
    [
        (7,),
        (Event.UNWELL, "clean", 143),
        (Event.UNWELL, "unclean", 143),
        (Event.UNWELL, "clean", 5.0, 137),
        (Event.UNWELL, Event.STOP, "clean", 143),
        (Event.UNWELL, Event.STOP, Event.STOP, Event.STOP, 137),
    ],
)
def test_who_fails_before_it_took_over_ends_with_3_and_has_asked_nobody_to_go(
    script: tuple[What, ...],
) -> None:
    living = in_phase(Phase.BAKING).play(*script, Event.LEFT)
    assert living.life.phase is Phase.OVER
    assert living.life.code == NOT_READY
    assert "before it took over" in living.life.problem
    assert Act.REPLACE not in living.acts


@pytest.mark.parametrize("script", [(Event.STOP,), (Event.RETIRE,)])
def test_who_is_asked_to_go_while_it_bakes_ends_well(script: tuple[What, ...]) -> None:
    living = in_phase(Phase.BAKING).play(*script, "clean", 143, Event.LEFT)
    assert living.life.code == DONE
    assert living.life.problem == ""
    assert Act.REPLACE not in living.acts


def test_once_it_took_over_its_code_is_its_own() -> None:
    living = in_phase(Phase.BAKING).play(5.0, Event.UNWELL, 7, Event.LEFT)
    assert living.life.code == 7


def test_what_is_wrong_first_is_the_problem() -> None:
    living = Living().play(Event.WELL, 7, Event.REFUSED, Event.LEFT)
    assert living.life.code == NOT_READY
    assert living.life.problem == "it ended with exit code 7 before it was registered"


def test_a_problem_says_what_the_newest_probe_found() -> None:
    living = Living(Terms(ready_timeout=30.0))
    assert living.wait(30.0, doubt="connection refused") == [Act.TERMINATE]
    assert living.life.problem == "it was not ready within 30 s: connection refused"
    assert "503" in Living(TAKING_OVER).play(*READY, Event.UNWELL).life.problem


# ---- times


@pytest.mark.parametrize("seconds", [0.5, 90.0])
def test_how_long_it_may_take_to_be_ready_is_as_the_terms_say(seconds: float) -> None:
    living = Living(Terms(ready_timeout=seconds))
    assert living.life.wake_at == START + seconds
    living.play(seconds - 0.1)
    assert living.acts == []
    living.play(0.2)
    assert living.acts == [Act.TERMINATE]


@pytest.mark.parametrize("seconds", [0.5, 90.0])
def test_how_long_it_bakes_is_as_the_terms_say(seconds: float) -> None:
    living = Living(Terms(replace=True, bake=seconds)).play(30.0, *READY)
    living.play(seconds - 0.1)
    assert Act.REPLACE not in living.acts
    living.play(0.2)
    assert living.acts[-1] is Act.REPLACE


@pytest.mark.parametrize("seconds", [0.5, 90.0])
def test_how_long_it_may_take_to_stop_is_as_the_terms_say(seconds: float) -> None:
    living = Living(Terms(stop_timeout=seconds)).play(*READY, Event.STOP, 30.0, "clean")
    living.play(seconds - 0.1)
    assert Act.KILL not in living.acts
    living.play(0.2)
    assert living.acts[-1] is Act.KILL


@pytest.mark.parametrize(
    ("terms", "watched", "acts"),
    [
        (Terms(trial=60.0), 60.0, [Act.PROMOTE]),
        (Terms(trial=0.0), 0.0, [Act.PROMOTE]),
        (Terms(trial=60.0, replace=True, bake=5.0), 60.0, [Act.PROMOTE, Act.REPLACE]),
        (Terms(trial=2.0, replace=True, bake=5.0), 5.0, [Act.PROMOTE, Act.REPLACE]),
        (Terms(replace=True, bake=5.0), 5.0, [Act.REPLACE]),
    ],
)
def test_on_trial_it_is_watched_for_as_long_as_the_longer_of_both(
    terms: Terms, watched: float, acts: list[Act]
) -> None:
    """And has its full share before the others are asked to go."""
    living = Living(terms).play(*READY)
    assert living.life.phase is Phase.BAKING
    assert living.life.wake_at == START + watched
    assert living.wait(watched) == acts
    assert living.life.phase is Phase.SERVING


def test_who_fails_its_trial_drains_as_healthy_as_it_is_and_ends_with_3() -> None:
    living = Living(Terms(trial=60.0)).play(*READY, Event.OBJECTION)
    assert living.last == [Act.DRAIN]
    living.play("clean", 143, Event.LEFT)
    assert living.life.code == NOT_READY
    assert "failed its trial: GET /health answered 503" in living.life.problem
    assert Act.PROMOTE not in living.acts


def test_without_replace_nobody_is_asked_to_go_and_nothing_is_waited_for() -> None:
    living = Living(PLAIN).play(*READY, 3600.0)
    assert living.acts == [Act.REGISTER]
    assert living.life.wake_at is None


def test_a_tick_that_comes_early_does_nothing() -> None:
    living = in_phase(Phase.BAKING)
    assert living.life.tick(START + 4.9) == []
    assert living.life.wake_at == START + 5.0
    assert living.life.phase is Phase.BAKING


# ---- doubt at the end of baking


def test_a_doubt_at_the_end_of_baking_is_cleared_first() -> None:
    living = in_phase(Phase.BAKING)
    assert living.wait(5.0, doubt="GET /health answered 503") == []
    assert living.life.phase is Phase.BAKING
    assert living.life.wake_at == START + 5.0 + 2.0
    assert living.wait(2.0) == [Act.REPLACE]


def test_a_doubt_that_turns_out_true_leaves_the_older_ones_alone() -> None:
    living = in_phase(Phase.BAKING)
    living.wait(5.0, doubt="GET /health answered 503")
    living.play(Event.UNWELL)
    assert living.last == [Act.SAY_UNREADY, Act.DRAIN]
    living.play("clean", 143, Event.LEFT)
    assert living.life.code == NOT_READY
    assert Act.REPLACE not in living.acts


# ---- while it is being registered


def test_who_turns_unwell_while_it_is_registered_says_so_at_once() -> None:
    assert Living(PLAIN).play(Event.WELL, Event.UNWELL, Event.REGISTERED).last == [Act.SAY_UNREADY]
    living = Living(TAKING_OVER).play(Event.WELL, Event.UNWELL, Event.REGISTERED)
    assert living.last == [Act.SAY_UNREADY, Act.DRAIN]
    assert "right after it was ready" in living.life.problem


def test_who_is_well_again_by_then_has_nothing_to_say() -> None:
    living = Living(TAKING_OVER).play(Event.WELL, Event.UNWELL, Event.WELL, Event.REGISTERED)
    assert (living.life.phase, living.last) == (Phase.BAKING, [])


@pytest.mark.parametrize("answer", [Event.REGISTERED, Event.REFUSED])
def test_who_dies_while_it_is_registered_leaves_once_it_is_known_what_there_is_to_take_back(
    answer: Event,
) -> None:
    living = in_phase(Phase.REGISTERING).play(7)
    assert living.acts == []
    living.play(answer)
    assert living.acts == [Act.LEAVE]


def test_who_is_stopped_while_it_is_registered_drains_as_soon_as_it_is() -> None:
    living = in_phase(Phase.REGISTERING).play(Event.STOP, Event.REGISTERED)
    assert living.acts == [Act.DRAIN]


def test_signals_that_came_while_it_was_registered_count() -> None:
    """Whoever has pressed Ctrl-C twice wants no drain, and three times no waiting at all."""
    living = in_phase(Phase.REGISTERING).play(Event.STOP, Event.STOP, Event.REGISTERED)
    assert living.acts == [Act.DRAIN, Act.HURRY]
    living = in_phase(Phase.REGISTERING).play(Event.STOP, Event.STOP, Event.STOP)
    assert living.acts == [Act.KILL]
    living.play(137)
    assert living.acts == [Act.KILL]
    living.play(Event.REGISTERED, Event.LEFT)
    assert living.acts == [Act.KILL, Act.LEAVE]
    assert living.life.code == KILLED


# ---- signals


def test_a_second_signal_shortens_the_drain_and_the_third_ends_everything() -> None:
    living = in_phase(Phase.DRAINING).play(Event.STOP)
    assert living.acts == [Act.HURRY]
    living.play(Event.STOP)
    assert living.acts == [Act.HURRY, Act.KILL]
    assert living.life.phase is Phase.STOPPING
    living.play("unclean", 3600.0)
    assert living.acts == [Act.HURRY, Act.KILL]


def test_the_third_signal_kills_what_was_told_to_end() -> None:
    living = in_phase(Phase.STOPPING).play(Event.STOP)
    assert living.acts == []
    living.play(Event.STOP)
    assert living.acts == [Act.KILL]
    living.play(3600.0)
    assert living.acts == [Act.KILL]


def test_to_be_asked_to_retire_again_and_again_shortens_nothing() -> None:
    living = in_phase(Phase.DRAINING).play(*[Event.RETIRE] * 5)
    assert living.acts == []
    living.play(Event.STOP)
    assert living.acts == [Act.HURRY]
    living.play(Event.RETIRE)
    assert living.acts == [Act.HURRY]


def test_signals_that_come_when_all_is_done_change_nothing() -> None:
    for phase in (Phase.LEAVING, Phase.OVER):
        assert in_phase(phase).play(*[Event.STOP] * 5).acts == []
