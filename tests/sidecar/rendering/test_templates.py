"""Templates: what they see, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from disco_sidecar.rendering.fleet import select
from disco_sidecar.rendering.templates import RenderFailed, Template
from discoclient import ConfigError
from tests.cli.records import instance

SERVICES = {
    "experiment": select(
        "experiment", [instance("experiment", "aaaaaaaa", version="2", metadata={"team": "red"})]
    ),
    "data-store": select("data-store", [instance("data-store", "bbbbbbbb", host="::1", port=9)]),
}


def rendered(tmp_path: Path, text: str) -> str:
    path = tmp_path / "t.j2"
    path.write_text(text)
    return Template(path).render(SERVICES).decode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{% for i in services.experiment.instances %}\n  {{ i.address }};\n{% endfor %}\n", "  10.0.0.5:8000;\n"),
        ('{{ services["data-store"].instances[0].address }}', "[::1]:9"),
        ("{{ services|join(' ') }}", "experiment data-store"),
        ("{% for name, s in services.items() %}{{ name }}={{ s.instances|length }} {% endfor %}", "experiment=1 data-store=1 "),
        ("{{ services.experiment.instances[0].metadata.team }}", "red"),
        ("{{ services.experiment.scheme }}", "http"),
        ("{{ 'a b;'|word }}", "a_b_"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),
        ("{{ env.NOT_SET|default('none') }} {{ env.SET }}", "none yes"),
        ("{% if 'ledger' in services %}yes{% else %}no{% endif %}", "no"),
        ("<&>\n", "<&>\n"),
    ],
)  # fmt: skip
def test_what_a_template_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: str
) -> None:
    monkeypatch.setenv("SET", "yes")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert rendered(tmp_path, text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n{{ services.experiment.instances[0].adress }}", ["t.j2:2: ", "'adress'", "it has address, host,"]),
        ("\n\n{{ services.experiment.members }}", ["t.j2:3: ", "'members'", "draining, instances, keepalive"]),
        ("{{ services.ledger }}", ["t.j2:1: ", "'ledger'", "the services are data-store, experiment"]),
        ("{{ nothing }}", ["t.j2:1: ", "'nothing' is undefined"]),
        ("{{ env.NOT_SET }}", ["t.j2:1: ", "'NOT_SET'"]),
        ("\n{{ 1 / 0 }}", ["t.j2:2: ", "ZeroDivisionError"]),
        ("{% if true %}\n{{ fail('too few') }}{% endif %}", ["t.j2:2: too few"]),
        ("{{ services.experiment.instances[7] }}", ["t.j2:1: "]),
        ("{% include 'other.j2' %}", ["t.j2:1: ", "no template 'other.j2'"]),
    ],
)  # fmt: skip
def test_a_mistake_that_shows_when_it_is_rendered_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(RenderFailed) as caught:
        rendered(tmp_path, text)
    assert "\n" not in str(caught.value)
    for wanted in words:
        assert wanted in str(caught.value)


def test_a_mistake_in_an_included_file_is_told_with_that_file(tmp_path: Path) -> None:
    (tmp_path / "inner.j2").write_text("\n\n{{ nothing }}")
    with pytest.raises(RenderFailed, match=r"inner\.j2:3: 'nothing' is undefined"):
        rendered(tmp_path, "{% include 'inner.j2' %}")
    (tmp_path / "inner.j2").write_text("\n{% if %}")
    with pytest.raises(RenderFailed, match=r"inner\.j2:2: "):
        rendered(tmp_path, "{% include 'inner.j2' %}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\n{% for x in %}", r"t\.j2:2: "),
        ("{{ a|random }}", r"t\.j2:1: No filter named 'random'"),
        ("\n{% if x %}", r"t\.j2:2: Unexpected end of template"),
    ],
)
def test_what_is_no_template_is_told_with_its_line_before_anything_is_done(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        rendered(tmp_path, text)


def test_a_template_that_can_t_be_read_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read the template .*none\.j2: No such file"):
        Template(tmp_path / "none.j2")
    (tmp_path / "t.j2").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        Template(tmp_path / "t.j2")


def test_http_and_https_together_are_a_mistake_only_where_one_scheme_is_asked_for(tmp_path: Path) -> None:
    both = [instance("both", "aaaaaaaa", scheme="https"), instance("both", "bbbbbbbb", port=1)]
    services = {"both": select("both", both)}
    path = tmp_path / "t.j2"
    path.write_text(
        "{{ services.both.instances|selectattr('scheme', 'equalto', 'https')|map(attribute='port')|join }}"
    )
    assert Template(path).render(services) == b"8000"
    path.write_text("{{ services.both.scheme }}")
    with pytest.raises(RenderFailed, match="both has http and https instances"):
        Template(path).render(services)
