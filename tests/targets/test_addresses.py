"""Which addresses can be written to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.targets.addresses import mailbox, name_of_person, one_line, sender

GOOD = [
    ("ada@example.org", "ada@example.org", False),
    (" Ada.Waters+x@Example.ORG ", "Ada.Waters+x@example.org", False),
    ("o'brien@example.org", "o'brien@example.org", False),
    ("ada@bücher.example", "ada@xn--bcher-kva.example", False),
    ("用户@例え.example", "用户@例え.example", True),
    ("żofia@example.org", "żofia@example.org", True),
    ("ada@straße.example", "ada@straße.example", True),  # Python's codec would write to strasse.example
]
BAD = [
    "",
    "ada",
    "@example.org",
    "ada@",
    "ada@example",
    "ada@localhost",
    "ada@[192.0.2.1]",
    "ada@192.0.2.1",
    "ada@example..org",
    "ada@-example.org",
    "ada@example.org, eve@example.org",
    "ada@example.org\r\nBcc: eve@example.org",
    "ada\n@example.org",
    "ada@example.org\x00",
    "ada <ada@example.org>",
    '"ada waters"@example.org',
    "a da@example.org",
    ".ada@example.org",
    "ada.@example.org",
    "a..da@example.org",
    "ada@exa mple.org",
    "ada@eve@example.org",
    "ada(comment)@example.org",
    "ada\u200b@example.org",
    "ada\u202e@example.org",
    f"{'a' * 65}@example.org",
    f"ada@{'a' * 64}.example.org",
    f"ada@{'a.' * 130}org",
    "ada>@example.org",
    "<ada@example.org",
]


@pytest.mark.parametrize(("text", "written", "internationalised"), GOOD)
def test_good_addresses(text: str, written: str, internationalised: bool) -> None:
    found = mailbox(text)

    assert found is not None
    assert (found.text, found.internationalised) == (written, internationalised)
    assert "ada" not in repr(found).lower()


@pytest.mark.parametrize("text", BAD)
def test_bad_addresses(text: str) -> None:
    assert mailbox(text) is None


@given(st.text())
def test_what_is_taken_is_one_line_without_anything_that_ends_an_address(text: str) -> None:
    found = mailbox(text)

    if found is not None:
        assert found.text.isprintable()
        assert not set(' \r\n<>,;"') & set(found.text)
        assert found.text.count("@") == 1


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text)

    assert all(letter.isprintable() or letter in "\u200c\u200d" for letter in line)
    assert "\n" not in line
    assert one_line(line) == line


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" Ada ", "Ada"),
        ("Łukasz Żółć", "Łukasz Żółć"),
        ("Ada\r\nBcc: eve", "Ada Bcc: eve"),
        (None, ""),
        ("Win at https://example.org", ""),
        ("www.example.org", ""),
        ("ada@example.org", ""),
        ("<b>Ada</b>", ""),
        ("A" * 101, ""),
    ],
)
def test_names_of_persons(text: str | None, name: str) -> None:
    assert name_of_person(text) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail@example.org", ("", "mail@example.org")),
        ("River Club <mail@example.org>", ("River Club", "mail@example.org")),
        ('"River Club, e.V." <mail@example.org>', ("River Club, e.V.", "mail@example.org")),
        ("River\nClub <mail@example.org>", ("River Club", "mail@example.org")),
        ("River Club", None),
        ("River Club <mail@example.org> and more", None),
        ("<a@example.org>, <b@example.org>", None),
    ],
)
def test_senders(text: str, expected: tuple[str, str] | None) -> None:
    found = sender(text)

    assert (found and (found[0], found[1].text)) == expected
