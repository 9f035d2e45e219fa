"""What was said, where, and which word counts; and what is no good is refused in one line that says what would be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from disco_sidecar.cli import main
from disco_sidecar.options import OPTIONS, gather
from disco_sidecar.settings import Settings


@pytest.fixture(autouse=True)
def logger() -> Iterator[None]:
    """The command sets it up for its process, which is ours."""
    logger = logging.getLogger("discoclient")
    before = logger.handlers, logger.level
    yield
    logger.handlers, level = before
    logger.setLevel(level)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """What the command says to options, with ``--check``, and *environ*."""

    def say(*options: str, environ: Mapping[str, str] | None = None) -> Said:
        with monkeypatch.context() as patch:
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            code = main([*options, "--check"])
        return Said(code, *capsys.readouterr())

    return say


def settings(
    flags: Mapping[str, Any], environ: Mapping[str, str] | None = None, config: str | None = None
) -> Settings:
    return Settings.of(gather(flags, environ or {}, config=config))


# ---- precedence

VALUES: dict[str, tuple[str, str, str]] = {
    "registry": ("etcd://a:1", "etcd://b:1", "etcd://c:1"),
    "bind": ("8001", "8002", "8003"),
    "listen": ("8001=a", "8002=a", "8003=a"),
    "tcp": ("8001=a", "8002=a", "8003=a"),
    "admin": ("8001", "8002", "8003"),
    "dns": ("127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"),
    "allow_host": ("a", "b", "c"),
    "workers": ("2", "3", "4"),
    "access_log": ("/tmp/a", "/tmp/b", "/tmp/c"),
    "zone": ("a", "b", "c"),
    "balancer": ("random", "round_robin", "least_request"),
    "ca": ("a", "b", "c"),
    "max_connections": ("1", "2", "3"),
    "max_body": ("1", "2", "3"),
    "replay": ("1", "2", "3"),
    **{option.name: ("1.5", "2.5", "3.5") for option in OPTIONS if option.kind is float},
}


def test_every_option_has_a_case() -> None:
    assert {option.name for option in OPTIONS} == {*VALUES, "allow_remote"}


def in_toml(name: str, text: str) -> str:
    option = next(option for option in OPTIONS if option.name == name)
    value = f"'{text}'" if option.kind is str else text
    return f"{name} = [{value}]\n" if option.is_many else f"{name} = {value}\n"


@pytest.mark.parametrize("name", VALUES)
def test_flags_win_over_the_environment_and_this_over_the_file(name: str, tmp_path: Path) -> None:
    flag, variable, file = VALUES[name]
    option = next(option for option in OPTIONS if option.name == name)
    config = tmp_path / "toml"
    config.write_text(in_toml(name, file))
    flags, environ = {name: [flag] if option.is_many else flag}, {f"DISCO_SIDECAR_{name.upper()}": variable}

    def of(text: str) -> Any:
        value = option.kind(text)
        return (value,) if option.is_many else value

    assert gather(flags, environ, config=str(config))[name] == of(flag)
    assert gather({}, environ, config=str(config))[name] == of(variable)
    assert gather({}, {}, config=str(config))[name] == of(file)
    assert name not in gather({}, {})


def test_a_switch_can_be_turned_off_again_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "toml").write_text("allow_remote = true")
    config = str(tmp_path / "toml")
    assert gather({}, {}, config=config)["allow_remote"] is True
    assert gather({}, {"DISCO_SIDECAR_ALLOW_REMOTE": "off"}, config=config)["allow_remote"] is False
    assert gather({"allow_remote": True}, {"DISCO_SIDECAR_ALLOW_REMOTE": "0"})["allow_remote"] is True


@pytest.mark.parametrize(("name", "variable"), [("registry", "DISCO_REGISTRY"), ("zone", "DISCO_ZONE")])
def test_discoclients_own_variables_are_the_environment_too(name: str, variable: str, tmp_path: Path) -> None:
    (tmp_path / "toml").write_text(f"{name} = 'etcd://file'")
    config = str(tmp_path / "toml")
    assert name not in gather({}, {variable: "etcd://environment"}, config=config)  # it is the default
    both = {variable: "etcd://environment", f"DISCO_SIDECAR_{name.upper()}": "etcd://ours"}
    assert gather({}, both, config=config)[name] == "etcd://ours"


def test_several_values_stand_with_commas_in_the_environment_and_replace_those_of_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "toml").write_text("allow-host = ['x', 'y']\nlisten = '80=a'\n")
    found = gather({}, {"DISCO_SIDECAR_ALLOW_HOST": "a, b,"}, config=str(tmp_path / "toml"))
    assert found == {"allow_host": ("a", "b"), "listen": ("80=a",)}


def test_an_empty_variable_says_nothing(check: Say) -> None:
    assert check(environ={"DISCO_SIDECAR_WORKERS": "", "DISCO_SIDECAR_CONFIG": ""}).code == 0


def test_the_file_may_be_named_in_the_environment(tmp_path: Path, check: Say) -> None:
    (tmp_path / "toml").write_text("bind = '8123'")
    said = check(environ={"DISCO_SIDECAR_CONFIG": str(tmp_path / "toml")})
    assert "bind 127.0.0.1:8123" in said.out
    (tmp_path / "other").write_text("bind = '8124'")
    said = check(
        "--config", str(tmp_path / "other"), environ={"DISCO_SIDECAR_CONFIG": str(tmp_path / "toml")}
    )
    assert "bind 127.0.0.1:8124" in said.out


# ---- --check


def test_check_says_what_was_understood_and_starts_nothing(check: Say) -> None:
    said = check(
        "--listen",
        "8081=a",
        "--tcp",
        "[::1]:8082=b",
        "--admin",
        "unix:/run/a",
        "--allow-host",
        "App.example.com",
    )
    assert said == Said(
        0,
        "registry etcd://127.0.0.1:2379\nbind 127.0.0.1:7500\nlisten 127.0.0.1:8081=a\ntcp [::1]:8082=b\n"
        "admin unix:/run/a\nknown as app.example.com\nthe configuration is good\n",
        "",
    )


def test_check_shows_no_password(check: Say) -> None:
    said = check("--registry", "etcd://me:secret@host:1")
    assert said.code == 0
    assert "secret" not in said.out + said.err


def test_off_is_no_address_at_all(check: Say) -> None:
    said = check("--bind", "off", "--admin", "off", "--listen", "8081=a")
    assert said.out.splitlines()[1:-1] == ["listen 127.0.0.1:8081=a"]


# ---- what is no good

WRONG: list[tuple[list[str], str]] = [
    (["--workers", "x"], "--workers is a whole number; got 'x'"),
    (["--workers", "1.5"], "--workers is a whole number; got '1.5'"),
    (["--workers", "0"], "--workers must be from 1 to 64; got 0"),
    (["--workers", "65"], "from 1 to 64"),
    (["--workers", "2", "--bind", "0"], "can't share a port that is chosen"),
    (["--max-connections", "0"], "1 or more"),
    (["--replay", "-1"], "0 bytes or more"),
    (["--max-body", "-1"], "0 bytes (no limit) or more"),
    *(
        (["--" + name, value], wanted)
        for name in ("header-timeout", "idle-timeout", "read-timeout", "connect-timeout", "discovery-timeout")
        for value, wanted in (
            ("0", "more than 0 seconds"),
            ("nan", "more than 0"),
            ("inf", "86400 at most"),
            ("x", "a number"),
        )
    ),
    (["--drain-timeout", "-1"], "from 0 to 86400 seconds"),
    (["--drain-timeout", "inf"], "from 0 to 86400 seconds"),
    (["--balancer", "best"], "--balancer is one of peak_ewma, least_request, "),
    (["--balancer", "rendezvous"], "--balancer is one of peak_ewma, "),
    (["--registry", "http://x"], "--registry: "),
    (["--registry", "memory://x"], "--registry: memory:// lives within one process"),
    (["--bind", "example.com:80"], "--bind takes PORT, ADDR:PORT, [ADDR]:PORT (IPv6) or unix:PATH"),
    (["--bind", ""], "--bind takes PORT"),
    (["--admin", "x"], "--admin takes PORT"),
    (["--dns", "unix:/a"], "--dns takes ADDR:PORT, not a Unix socket"),
    (["--listen", "8081"], "--listen takes PORT=SERVICE"),
    (["--tcp", "8081=No"], "--tcp 8081=No: "),
    (["--bind", "0.0.0.0:80"], "unless --allow-remote is given"),
    (["--admin", "[::]:80"], "unless --allow-remote is given"),
    (["--dns", "10.0.0.1:53"], "unless --allow-remote is given"),
    (["--listen", "7500=a"], "bind 127.0.0.1:7500 and listen 127.0.0.1:7500=a are the same address"),
    (["--tcp", "[::1]:7501=a"], "are the same address"),
    (["--dns", "127.0.0.1:7500"], "are the same address"),
    (["--bind", "off"], "there is no way in: give one of --bind, --listen, --tcp, --dns"),
    (["--allow-host", "a:80"], "--allow-host takes a host's name without a port"),
    (["--allow-host", "a b"], "--allow-host takes"),
    (["--ca", "/nowhere/ca.pem"], "--ca /nowhere/ca.pem: No such file"),
    (["--ca", "/etc/hostname"], "--ca /etc/hostname: "),
    (["--access-log", "/nowhere/log"], "--access-log /nowhere/log: "),
    (["--config", "/nowhere/toml"], "--config /nowhere/toml: No such file"),
    (["--config", "/"], "--config /: Is a directory"),
    (["--no-such-option"], "unrecognized arguments: --no-such-option; see 'disco-sidecar --help'"),
    (["--work", "2"], "unrecognized arguments"),
    (["--workers"], "expected one argument"),
    (["word"], "unrecognized arguments: word"),
]


@pytest.mark.parametrize(("options", "wanted"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_bad_input_is_one_line_and_exit_code_2(options: list[str], wanted: str, check: Say) -> None:
    if options[:1] == ["--bind"] and options[1] == "off":
        options = [*options, "--admin", "8000"]
    said = check(*options)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("disco-sidecar: ")
    assert said.err.count("\n") == 1
    assert wanted in said.err


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("DISCO_SIDECAR_WORKERS", "x", "$DISCO_SIDECAR_WORKERS is a whole number; got 'x'"),
        ("DISCO_SIDECAR_ALLOW_REMOTE", "maybe", "$DISCO_SIDECAR_ALLOW_REMOTE is true or false; got 'maybe'"),
        ("DISCO_SIDECAR_IDLE_TIMEOUT", "1s", "$DISCO_SIDECAR_IDLE_TIMEOUT is a number; got '1s'"),
        ("DISCO_REGISTRY", "x", "$DISCO_REGISTRY: "),
        ("DISCO_REGISTRY", "memory://x", "$DISCO_REGISTRY: memory://"),
        ("DISCO_LOG", "loud", "$DISCO_LOG is one of debug, info, warning, error, critical; got 'loud'"),
        ("DISCO_SIDECAR_CONFIG", "/nowhere", "--config /nowhere: "),
    ],
)
def test_bad_input_from_the_environment_is_named_by_its_variable(
    variable: str, value: str, wanted: str, check: Say
) -> None:
    said = check(environ={variable: value})
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert wanted in said.err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("wrokers = 2", "there is no option 'wrokers'; the options are access_log, admin, allow_host, "),
        ("[listen]\nport = 1", "listen is a text; got {'port': 1}"),
        ("workers = '2'", "workers is a whole number; got '2'"),
        ("workers = 2.0", "workers is a whole number; got 2.0"),
        ("workers = true", "workers is a whole number; got True"),
        ("workers = [2]", "workers is a whole number; got [2]"),
        ("allow_remote = 'true'", "allow_remote is true or false; got 'true'"),
        ("allow_remote = 1", "allow_remote is true or false; got 1"),
        ("idle_timeout = '5'", "idle_timeout is a number; got '5'"),
        ("idle_timeout = true", "idle_timeout is a number; got True"),
        ("bind = 8080", "bind is a text; got 8080"),
        ("listen = ['8081=a', 5]", "listen is a text; got 5"),
        ("zone = 5", "zone is a text; got 5"),
        ("workers = ", "toml: "),
        ("workers = 1\nworkers = 2", "toml: "),
        ("\udcff", "toml: "),
    ],
)
def test_a_file_with_a_fault_is_named_with_what_is_wrong(
    text: str, wanted: str, check: Say, tmp_path: Path
) -> None:
    (tmp_path / "toml").write_bytes(text.encode(errors="surrogateescape"))
    said = check("--config", str(tmp_path / "toml"))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"--config {tmp_path}/toml: " in said.err
    assert wanted in said.err


def test_a_number_may_be_whole_where_it_need_not_be(tmp_path: Path) -> None:
    (tmp_path / "toml").write_text("idle_timeout = 5")
    assert settings({}, config=str(tmp_path / "toml")).policy.idle_timeout == 5.0


def test_help_names_every_option_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert option.flag in said
        default = option.default[0] if option.is_many and option.default else option.default
        if default not in (None, (), False):
            text = f"{default:g}" if isinstance(default, float) else str(default)
            assert f"(default: {text})" in said, option.name
    for signal in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"):
        assert signal in said
