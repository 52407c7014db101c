"""Templates: which one is found, what it may do, and what is said of a wrong one."""

from pathlib import Path

import pytest

from flow.errors import ConfigError
from flow.outcome import Retry
from flow.targets.templates import SHIPPED, Templates, chain

VARIABLES = {
    "first_name": "Ada",
    "campaign": {"name": "clean_water", "title": "Clean water"},
    "org": {"name": "river_club", "title": "River Club"},
    "unsubscribe_link": "https://example.org/leave",
    "accept_link": "https://example.org/accept",
    "reject_link": "https://example.org/reject",
}


def write(folder: Path, name: str, **parts: str) -> None:
    """Write a template; `body_html="…"` is the file body.html."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for part, text in parts.items():
        stem, _, kind = part.rpartition("_")
        (place / f"{stem}.{kind}").write_text(text)


@pytest.mark.parametrize(
    ("locale", "looked_for"),
    [
        ("de_AT", ["de_AT", "de", "default"]),
        ("de-at", ["de_AT", "de", "default"]),
        ("EN", ["en", "default"]),
        ("zh_hans_CN", ["zh_Hans_CN", "zh_Hans", "zh", "default"]),
        ("", ["default"]),
        ("../secret", ["default"]),
        ("de/../..", ["default"]),
        ("x" * 300, ["default"]),
    ],
)
def test_the_nearest_language_is_looked_for_first(locale: str, looked_for: list[str]) -> None:
    assert list(chain(locale)) == looked_for


def test_the_first_language_that_is_there_is_taken_whole(tmp_path: Path) -> None:
    write(tmp_path, "thanks/default", subject_txt="Thanks", body_txt="text", body_html="<p>html</p>")
    write(tmp_path, "thanks/de", subject_txt="Danke", body_txt="Text")
    write(tmp_path, "thanks/de_AT", body_html="<p>no subject: not a template yet</p>")
    templates = Templates(str(tmp_path))

    found = {locale: templates.find("thanks", locale) for locale in ("de_AT", "de_CH", "fr")}

    assert {locale: one.locale for locale, one in found.items()} == {
        "de_AT": "de",
        "de_CH": "de",
        "fr": "default",
    }
    assert found["de_AT"].render({}).html is None  # a mail is in one language
    assert found["fr"].render({}).html == "<p>html</p>"


def test_a_folder_of_yours_wins_over_what_flow_brings_along(tmp_path: Path) -> None:
    write(tmp_path, "confirm/default", subject_txt="Mine", body_txt="text")
    templates = Templates(str(tmp_path))

    assert templates.find("confirm", "de").render({}).subject == "Mine"
    assert templates.find("thank_you", "de").render(VARIABLES).subject == "Danke: Clean water"


@pytest.mark.parametrize("name", ["confirm", "thank_you"])
@pytest.mark.parametrize(
    ("locale", "language"), [("en", "en"), ("de_AT", "de"), ("fr_BE", "fr"), ("pl", "en")]
)
def test_the_templates_that_flow_brings_along_are_whole(name: str, locale: str, language: str) -> None:
    for first_name in ("Ada", ""):
        rendered = Templates().find(name, locale).render({**VARIABLES, "first_name": first_name})

        assert "Clean water" in rendered.subject
        assert rendered.html is not None
        assert f'<html lang="{language}">' in rendered.html
        for text in (rendered.text, rendered.html):
            assert "Clean water" in text
            assert "River Club" in text
            assert ("Ada" in text) is bool(first_name)
            for link in ("accept", "reject") if name == "confirm" else ("leave",):
                assert f"https://example.org/{link}" in text
        assert "\n\n\n" not in rendered.text
        assert " ," not in rendered.text
        assert not rendered.text.startswith("\n")


def test_every_language_that_is_brought_along_has_all_parts() -> None:
    languages = [path for path in SHIPPED.glob("*/*") if path.is_dir()]

    assert len(languages) == 9
    for path in languages:
        assert {one.name for one in path.iterdir()} == {"subject.txt", "body.txt", "body.html"}


def test_html_is_escaped_and_text_is_not(tmp_path: Path) -> None:
    parts = {"subject_txt": "{{ x }}", "body_txt": "{{ x }}", "body_html": "<p>{{ x }}</p>"}
    write(tmp_path, "t/default", **parts)

    rendered = Templates(str(tmp_path)).find("t", "en").render({"x": "<script>\r\nBcc: a & b"})

    assert rendered.html == "<p>&lt;script&gt;\r\nBcc: a &amp; b</p>"
    assert rendered.subject == "<script> Bcc: a & b"
    assert rendered.text == "<script>\r\nBcc: a & b\n"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{% for i in range(99999999) %}{% endfor %}",
        "{% include '../../../../../etc/passwd' %}",
        "{% include '/etc/passwd' %}",
        "{{ nothing }}",
        "{{ nothing.at_all }}",
        "{{ x | nofilter }}",
        "{% if %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_template_reaches_nothing_but_its_variables(tmp_path: Path, attack: str) -> None:
    write(tmp_path, "t/default", subject_txt="x", body_txt=attack)

    with pytest.raises(Retry, match=r"^(the|there is no) template ") as refused:
        Templates(str(tmp_path)).find("t", "en").render({"x": ["canary"]})

    assert "canary" not in str(refused.value)


def test_what_is_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, "t/de", subject_txt="x", body_txt="fine\n{% if %}")
    write(tmp_path, "t/fr", subject_txt="x")
    write(tmp_path, "t/en", subject_txt="{{ frist_name }}", body_txt="x")
    templates = Templates(str(tmp_path))

    for locale, sentence in (
        ("de", r"^the template t/de/body\.txt cannot be read: line 2: "),
        ("fr", r"^the template t/fr has no body\.txt$"),
        ("en", r"^the template t/en/subject\.txt cannot be filled in: 'frist_name' is undefined$"),
        ("pl", r"^there is no template t for pl or default$"),
    ):
        with pytest.raises(Retry, match=sentence):
            templates.find("t", locale).render({"first_name": "Ada"})


def test_a_template_that_makes_too_much_is_told(tmp_path: Path) -> None:
    write(tmp_path, "t/default", subject_txt="x", body_txt="{{ 'y' * count }}")
    template = Templates(str(tmp_path)).find("t", "en")

    assert len(template.render({"count": 1 << 20}).text) == (1 << 20) + 1  # a line has an end
    with pytest.raises(Retry, match=r"^the template t/default/body\.txt makes more than 1 MiB$"):
        template.render({"count": (1 << 20) + 1})


@pytest.mark.parametrize(
    "name", ["", "../confirm", "/etc", "a//b", "a/../b", ".git", "a\nb", "x" * 200, "a\\b"]
)
def test_names_that_lead_elsewhere_are_no_names(name: str) -> None:
    with pytest.raises(Retry, match=r"^the name of the template is none"):
        Templates().find(name, "en")


def test_a_folder_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the folder of templates .+/nowhere is not there$"):
        Templates(str(tmp_path / "nowhere"))


def test_a_changed_template_is_used_at_once(tmp_path: Path) -> None:
    write(tmp_path, "t/default", subject_txt="one", body_txt="x")
    templates = Templates(str(tmp_path))
    first = templates.find("t", "en").render({}).subject
    write(tmp_path, "t/default", subject_txt="another one")
    import os

    os.utime(tmp_path / "t/default/subject.txt", (1, 1))  # another time, however coarse the clock

    assert (first, templates.find("t", "en").render({}).subject) == ("one", "another one")
