"""The watch machine, and what others who share its watch found out: as good as its own question where it covers what it
knows.
"""

from __future__ import annotations

import pytest

from discoclient.registry.happenings import Do, Phase
from discoclient.registry.protocol import Batch, Probe, Proof
from tests.registry.shell import RANGE, Shell

ELSEWHERE = "/p/services/web2/aaaaaaaa"


def proof(shell: Shell, after: int) -> Proof:
    return Proof(after, shell.store.probe(RANGE, after))


def hear(shell: Shell, proof: Proof) -> None:
    shell.tell(Batch(proof.probe.revision, proof=proof))


def test_what_another_one_asked_for_proves_freshness(shell: Shell) -> None:
    shell.now += 5.0
    shell.store.put(ELSEWHERE, b"1", lease=1)
    hear(shell, proof(shell, shell.machine.revision))
    assert shell.machine.fresh_at == shell.now
    assert shell.machine.revision == shell.store.revision


def test_who_hears_of_others_questions_has_none_of_its_own(shell: Shell) -> None:
    for _ in range(20):
        shell.run(6)
        hear(shell, proof(shell, shell.machine.revision))
    assert shell.asks(Do.PROBE) == []
    shell.run(30)
    assert len(shell.asks(Do.PROBE)) >= 2, "the negative control"


def test_a_question_from_further_back_counts_for_who_knows_more(shell: Shell) -> None:
    known = shell.machine.revision
    shell.store.put(ELSEWHERE, b"1", lease=1)
    hear(shell, proof(shell, known))
    shell.now += 1.0
    hear(shell, proof(shell, known))
    assert shell.machine.fresh_at == shell.now


@pytest.mark.parametrize(("after", "behind"), [(1, 0), (0, 1)], ids=["from later on", "answered before"])
def test_a_proof_about_another_time_says_nothing(shell: Shell, after: int, behind: int) -> None:
    began, revision = shell.machine.fresh_at, shell.machine.revision
    probe = Probe(revision + after - behind, 0, 2, shell.store.probe(RANGE, revision).last)
    shell.now += 5.0
    hear(shell, Proof(revision + after, probe))
    assert shell.machine.fresh_at == began
    assert shell.machine.revision == revision


def test_a_proof_that_does_not_agree_with_what_is_known_is_a_doubt(shell: Shell) -> None:
    revision = shell.machine.revision
    hear(shell, Proof(revision, Probe(revision + 1, 0, 1)))
    assert shell.machine.phase is Phase.SUSPECT
    assert shell.machine.revision == revision


def test_a_question_that_found_something_is_left_to_who_asked(shell: Shell) -> None:
    began, revision = shell.machine.fresh_at, shell.machine.revision
    shell.now += 5.0
    hear(shell, Proof(revision, Probe(revision + 1, revision + 1, 2)))
    assert (shell.machine.phase, shell.machine.fresh_at) == (Phase.LIVE, began)


def test_after_a_break_only_our_own_question_counts(shell: Shell) -> None:
    """It is the past that is asked about then."""
    shell.fail(Do.WATCH)
    shell.now += 0.3
    shell.tick()
    shell.open()
    assert shell.machine.phase is Phase.LIVE
    began = shell.machine.fresh_at
    hear(shell, proof(shell, shell.machine.revision))
    assert shell.machine.fresh_at == began
