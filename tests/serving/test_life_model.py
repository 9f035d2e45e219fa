"""The life of a service under ``disco run``, whatever happens and in whatever order: what it never does, and that it ends."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from discoclient.serving.life import DONE, KILLED, NO_REGISTRY, NOT_READY, Act, Event, Life, Phase, Terms
from tests.support.properties import thorough

BAKE, TRIAL, STOP_TIMEOUT, READY_TIMEOUT = 5.0, 8.0, 3.0, 60.0


class Lives(RuleBasedStateMachine):
    """A command that is well or not, and ends when it likes; people with signals; a registry that answers late."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.begin(is_replacing=False, trial=None)

    @initialize(is_replacing=st.booleans(), trial=st.sampled_from([None, 1.0, TRIAL]))
    def begin(self, is_replacing: bool, trial: float | None) -> None:
        self.terms = Terms(
            ready_timeout=READY_TIMEOUT,
            bake=BAKE,
            stop_timeout=STOP_TIMEOUT,
            replace=is_replacing,
            trial=trial,
        )
        self.is_objected = False
        self.life = Life(self.terms, now=self.now)
        self.acts: list[Act] = []
        self.is_well = self.is_doubted = False
        self.registered_at: float | None = None
        self.is_refused = False
        self.told_to_end_at: float | None = None
        self.is_drained = False
        self.exit: int | None = None
        self.signals = 0
        self.is_asked = False

    # ---- what happens

    @precondition(lambda self: self.exit is None)
    @rule(is_well=st.booleans())
    def a_probe_changes_the_verdict(self, is_well: bool) -> None:
        if is_well is not self.is_well:
            self.is_well, self.is_doubted = is_well, False
            self.take(self.life.handle(Event.WELL if is_well else Event.UNWELL, self.now, reason="503"))

    @precondition(lambda self: self.exit is None)
    @rule(is_doubted=st.booleans())
    def a_probe_raises_a_doubt(self, is_doubted: bool) -> None:
        self.is_doubted = is_doubted

    @precondition(lambda self: self.terms.trial is not None and self.registered_at is not None)
    @rule()
    def its_callers_object(self) -> None:
        self.is_objected = True
        self.take(self.life.handle(Event.OBJECTION, self.now, reason="0.5"))

    @precondition(lambda self: self.is_registering())
    @rule(is_done=st.booleans())
    def the_registry_answers(self, is_done: bool) -> None:
        if is_done:
            self.registered_at = self.now
        self.is_refused = not is_done
        self.take(self.life.handle(Event.REGISTERED if is_done else Event.REFUSED, self.now, reason="no"))

    @precondition(lambda self: self.is_draining())
    @rule(is_clean=st.booleans())
    def the_drain_ends(self, is_clean: bool) -> None:
        self.is_drained = True
        self.take(self.life.drained(is_clean, self.now))

    @precondition(lambda self: self.exit is None)
    @rule(code=st.sampled_from([0, 1, 137, 143]))
    def the_command_ends(self, code: int) -> None:
        self.exit = code
        self.take(self.life.exited(code, self.now))

    @rule()
    def a_signal(self) -> None:
        self.signals += 1
        self.is_asked = True
        self.take(self.life.handle(Event.STOP, self.now))

    @rule()
    def somebody_asks_it_to_retire(self) -> None:
        self.is_asked = True
        self.take(self.life.handle(Event.RETIRE, self.now))

    @precondition(lambda self: Act.LEAVE in self.acts)
    @rule()
    def it_has_left(self) -> None:
        self.take(self.life.handle(Event.LEFT, self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, STOP_TIMEOUT, BAKE, READY_TIMEOUT]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.life.wake_at is not None and self.life.wake_at <= end:
            self.now = self.life.wake_at
            self.take(self.life.tick(self.now, doubt="503" if self.is_doubted else "", interval=1.0))
        self.now = end

    def is_registering(self) -> bool:
        return Act.REGISTER in self.acts and self.registered_at is None and not self.is_refused

    def is_draining(self) -> bool:
        return Act.DRAIN in self.acts and not self.is_drained

    # ---- what is asked for

    def take(self, acts: list[Act]) -> None:
        for act in acts:
            before, self.acts = set(self.acts), [*self.acts, act]
            assert Act.LEAVE not in before, "leaving is the last that is asked for"
            if act not in (Act.SAY_READY, Act.SAY_UNREADY, Act.KILL):
                assert act not in before, "and nothing is asked for twice"
            if act is not Act.LEAVE:
                assert self.exit is None, "nothing more is to be done with what has ended"
            getattr(self, f"check_{act.name.lower()}")(before)

    def check_register(self, before: set[Act]) -> None:
        assert self.is_well
        assert not self.is_asked

    def check_say_ready(self, before: set[Act]) -> None:
        assert self.is_well
        assert self.registered_at is not None

    def check_say_unready(self, before: set[Act]) -> None:
        assert not self.is_well
        assert self.registered_at is not None

    def check_replace(self, before: set[Act]) -> None:
        assert self.terms.replace
        self.check_proof(before, BAKE)
        if self.terms.trial is not None:
            assert self.now >= (self.registered_at or 0) + self.terms.trial
            assert Act.PROMOTE in before

    def check_promote(self, before: set[Act]) -> None:
        assert self.terms.trial is not None
        self.check_proof(before, self.terms.trial)

    def check_proof(self, before: set[Act], seconds: float) -> None:
        assert self.registered_at is not None
        assert self.now >= self.registered_at + seconds
        assert self.is_well
        assert not self.is_doubted
        assert not self.is_asked
        assert not self.is_objected
        assert Act.SAY_UNREADY not in before

    def check_drain(self, before: set[Act]) -> None:
        assert self.registered_at is not None
        is_watched = self.terms.watch is not None and not before & {Act.REPLACE, Act.PROMOTE}
        assert self.is_asked or (is_watched and (self.is_objected or not self.is_well))

    def check_hurry(self, before: set[Act]) -> None:
        assert self.signals >= 2
        assert Act.DRAIN in before

    def check_terminate(self, before: set[Act]) -> None:
        self.told_to_end_at = self.now
        assert self.registered_at is None or self.is_drained
        assert not self.is_registering()

    def check_kill(self, before: set[Act]) -> None:
        is_over = self.told_to_end_at is not None and self.now >= self.told_to_end_at + STOP_TIMEOUT
        assert is_over or self.signals >= 3

    def check_leave(self, before: set[Act]) -> None:
        assert self.exit is not None
        assert not self.is_registering(), "what is registered after would stay"

    # ---- the end

    def teardown(self) -> None:
        """Whatever it was in the middle of: once the registry answers and time passes, the command is told to end."""
        self.a_signal()
        for _ in range(3):
            if self.is_registering():
                self.the_registry_answers(is_done=True)
            if self.is_draining():
                self.the_drain_ends(is_clean=True)
            self.time_passes(READY_TIMEOUT)
        if self.exit is None:
            assert {Act.TERMINATE, Act.KILL} & set(self.acts)
            assert Act.KILL in self.acts
            self.the_command_ends(137)
        assert self.acts.count(Act.LEAVE) == 1
        assert self.acts[-1] is Act.LEAVE
        if self.life.phase is not Phase.OVER:
            self.it_has_left()
        assert self.life.phase is Phase.OVER
        assert self.life.wake_at is None
        assert self.life.code in {DONE, NOT_READY, NO_REGISTRY, KILLED, self.exit}
        assert bool(self.life.problem) is (self.life.code in {NOT_READY, NO_REGISTRY})
        if self.life.code == NO_REGISTRY:
            assert self.is_refused


TestLives = Lives.TestCase
TestLives.settings = thorough(150, steps=30)
