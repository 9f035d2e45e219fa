"""What the figures of a proxy's CPU and memory rest on."""

import os
import subprocess
import sys

import pytest

from benchmarks.usage import Usage, cores, on_core, read_core, read_stat, read_status, usage, worked
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until


def test_cpu_is_read_from_the_fields_after_a_name_that_may_hold_anything() -> None:
    fields = ["S", "1", "42", "42", *["0", "-1", "4194304", "0", "0", "0", "0"], "150", "50", "7", "7"]
    session, cpu = read_stat(f"43 (a ) b) {' '.join(fields)}")
    assert session == 42
    assert cpu == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))


def test_a_process_that_has_ended_holds_no_memory() -> None:
    assert read_status("Name:\tx\nVmHWM:\t 2000 kB\nVmRSS:\t 1000 kB\n") == (1.024, 2.048)
    assert read_status("Name:\tx\nState:\tZ (zombie)\n") == (0.0, 0.0)


def test_what_a_program_started_counts_as_the_program() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True)\ntime.sleep(60)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    process = spawn([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        found = usage(process.pid)
        assert found.processes == 2
        assert found.cpu >= 0.28
        assert found.peak >= found.resident > 5
    finally:
        end(process, grace=0.0)
        assert process.stdout is not None
        process.stdout.close()
    assert wait_until(lambda: usage(process.pid) == Usage(0.0, 0.0, 0.0, 0), timeout=10.0)


def test_what_a_core_has_worked_leaves_out_what_it_waited() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 10 20 30 4000 500 1 2 600 0 0\ncpu10 7 7 7 7 7 7 7 7 7 7\n"
    assert read_core(text, 1) == pytest.approx(63 / os.sysconf("SC_CLK_TCK"))
    assert worked(cores()[0]) > 0


def test_everything_but_the_proxy_shares_a_core() -> None:
    before = os.sched_getaffinity(0)
    proxy, other = cores()
    with on_core(other):
        assert os.sched_getaffinity(0) == {other}
    assert os.sched_getaffinity(0) == before
    assert (proxy == other) is (len(before) == 1)
