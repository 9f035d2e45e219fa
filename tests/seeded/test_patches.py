"""The seeded bugs can be put in, say what they are, and the command tells one that is caught from one that is not."""

from __future__ import annotations

import pytest

from tests.seeded import __main__ as command
from tests.seeded.seeds import Hunk, Seed, all_seeds

SEEDS = {seed.name: seed for seed in all_seeds()}


def test_there_are_some_and_each_has_a_number_of_its_own() -> None:
    assert len(SEEDS) >= 12
    assert [int(name.partition("-")[0]) for name in SEEDS] == list(range(1, len(SEEDS) + 1))


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_a_patch_still_fits_and_names_a_reason_and_tests_that_are_there(seed: Seed) -> None:
    assert len(seed.reason) > 40
    assert seed.hunks
    for hunk in seed.hunks:
        text = (command.ROOT / hunk.path).read_text()
        assert hunk.path.startswith("discoclient/")
        assert hunk.applied(text) != text
        compile(hunk.applied(text), hunk.path, "exec")
    assert seed.tests
    for test in seed.tests:
        assert (command.ROOT / test).is_file(), test


def test_a_patch_that_does_not_fit_is_refused() -> None:
    hunk = Hunk("a.py", "one\n", "two\n")
    assert hunk.applied("zero\none\n") == "zero\ntwo\n"
    for text in ("zero\n", "one\none\n"):
        with pytest.raises(ValueError, match=r"a\.py: the hunk's text is there [02] times"):
            hunk.applied(text)


@pytest.mark.timeout(120)
def test_the_command_tells_what_is_caught_from_what_survives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Really run. The one that survives is the negative control: a patch that changes nothing."""
    real = SEEDS["14-failing-fast-is-attractive"]
    harmless = Seed("99-nothing", "nothing at all", ("tests/registry/test_keys.py",), ())
    monkeypatch.setattr(command, "all_seeds", lambda: [real, harmless])
    assert command.main([]) == 1
    printed = capsys.readouterr().out
    assert f"{real.tests[0]}::test_" in printed
    assert "NOBODY: IT SURVIVED" in printed
    assert "*** 99-nothing: SURVIVED" in printed
    assert "1 of 2 seeded bugs are caught" in printed


@pytest.mark.parametrize(
    ("caught_by", "trouble", "code"), [("a test", None, 0), (None, None, 1), (None, "it does not fit", 1)]
)
def test_the_exit_code_says_whether_every_one_was_caught(
    caught_by: str | None, trouble: str | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run", lambda seed: command.Trial(seed, caught_by, 1.0, trouble))
    assert command.main([]) == code


def test_a_name_that_no_bug_has_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["no-such-bug"]) == 2
    assert "14-failing-fast-is-attractive" in capsys.readouterr().err
