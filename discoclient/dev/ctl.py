"""etcdctl, pointed at some members."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .binary import EtcdBinary, clean_environment
from .failures import EtcdFailed
from .tls import TLSFiles

__all__ = ["run_etcdctl"]


def run_etcdctl(
    program: EtcdBinary,
    arguments: Sequence[str],
    *,
    ports: Sequence[int],
    tls: TLSFiles | None,
    timeout: float,
) -> str:
    """What ``etcdctl ARGUMENTS`` prints. Raises `EtcdFailed` with its errors, or after *timeout* seconds."""
    scheme = "http" if tls is None else "https"
    flags = ["--endpoints=" + ",".join(f"{scheme}://127.0.0.1:{port}" for port in ports)]
    if tls is not None:
        flags += tls.etcdctl_flags()
    what = f"etcdctl {' '.join(arguments)}"
    try:
        done = subprocess.run(
            [program.path, *flags, *arguments],
            check=False,
            env=clean_environment() | {"ETCDCTL_API": "3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise EtcdFailed(f"{what}: no answer after {timeout:g} s") from error
    if done.returncode != 0:
        raise EtcdFailed(f"{what}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout
