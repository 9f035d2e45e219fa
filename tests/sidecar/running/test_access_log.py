"""The access log: each line at once and whole, a file that is moved away, and one that can't be written to."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from disco_sidecar.running.access_log import AccessLog, check_log
from discoclient.model.errors import ConfigError


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log"))
    log.write("one")
    log.write("two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    log.close()


def test_it_is_appended_to_and_nobody_elses_to_read(tmp_path: Path) -> None:
    for line in ("one", "two"):
        log = AccessLog(str(tmp_path / "log"))
        log.write(line)
        log.close()
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_after_it_was_moved_away_it_goes_on_in_a_new_file(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log"))
    log.write("one")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.write("two")
    log.reopen()
    log.write("three")
    log.close()
    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").read_text() == "three\n"


def test_if_it_can_not_be_opened_again_the_old_file_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()
    log = AccessLog(str(tmp_path / "folder" / "log"))
    (tmp_path / "folder").rename(tmp_path / "moved")
    log.reopen()
    log.write("one")
    log.close()
    assert (tmp_path / "moved" / "log").read_text() == "one\n"
    assert "can't be opened again" in caplog.text


def test_a_full_disk_costs_lines_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full")
    for _ in range(3):
        log.write("x" * 10_000)
    log.close()
    assert [record.message for record in caplog.records] == [
        "the access log /dev/full can't be written, its lines are lost: [Errno 28] No space left on device"
    ]


def test_when_there_is_room_again_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "log").symlink_to("/dev/full")
    log = AccessLog(str(tmp_path / "log"))
    log.write("one")
    (tmp_path / "log").unlink()
    log.reopen()
    log.write("two")
    log.close()
    assert (tmp_path / "log").read_text() == "two\n"
    assert "is written again" in caplog.text


def test_a_minus_is_standard_output_which_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("-")
    log.write("one")
    log.reopen()
    log.write("two")
    log.close()
    os.fstat(1)
    assert capfd.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("where", ["{}", "{}/missing/log"], ids=["a folder", "in no folder"])
def test_a_place_where_no_file_can_be_is_wrong_usage(tmp_path: Path, where: str) -> None:
    path = where.format(tmp_path)
    for attempt in (AccessLog, check_log):
        with pytest.raises(ConfigError, match=f"--access-log {path}: .*give a file"):
            attempt(path)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_log(str(tmp_path / "log"))
    check_log("-")
    check_log(None)
    assert list(tmp_path.iterdir()) == []
