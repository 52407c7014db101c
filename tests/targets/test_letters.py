"""Letters: nothing that people type can add a header, and what programs read is right."""

from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import ConfigError
from flow.records.mailing import Recipient
from flow.targets.addresses import Mailbox, mailbox
from flow.targets.letters import Letter, Sender, compose, message_id
from flow.targets.links import ConfirmLinks, UnsubscribeLinks
from flow.targets.templates import Rendered

ADA = Recipient(
    action_id=7,
    contact_ref="fin/ger print",
    action_type="register",
    created_at=datetime(2026, 2, 19, 15, 17, tzinfo=UTC),
    custom_fields={},
    page="clean_water/river_club",
    locale="de_AT",
    campaign="clean_water",
    campaign_title="Clean water",
    org="river_club",
)
EXPECTED = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
}


def box(text: str) -> Mailbox:
    found = mailbox(text)
    assert found is not None
    return found


def write(
    *,
    subject: str = "Thanks",
    text: str = "Thank you.\n",
    html: str | None = None,
    name: str = "River Club",
    to: str = "ada@example.org",
    address: str = "mail@example.org",
    bounces: str | None = None,
    headers: dict[str, str] | None = None,
) -> Letter:
    sender = Sender(name=name, address=box(address), bounces=(bounces and box(bounces)) or None)
    rendered = Rendered(subject, text, html)
    return compose(rendered, sender, box(to), message_id(7, "ref", "thank_you"), headers or {})


def read(letter: Letter) -> EmailMessage:
    found = BytesParser(policy=default).parsebytes(letter.content)
    assert isinstance(found, EmailMessage)
    return found


def part(mail: EmailMessage, kind: str) -> str:
    found = mail.get_body((kind,))
    assert isinstance(found, EmailMessage)
    return str(found.get_content()).replace("\r\n", "\n")


def test_headers_of_a_pipeline_are_one_line_each() -> None:
    mail = read(write(headers={"X-Campaign": "Rivers\r\nBcc: eve@example.org\x00"}))

    assert (mail["X-Campaign"], mail["Bcc"]) == ("Rivers Bcc: eve@example.org", None)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\0"])
def test_no_header_can_be_added_by_what_people_type(ending: str) -> None:
    attack = f"x{ending}Bcc: eve@example.org{ending}{ending}<p>injected</p>"
    mail = read(write(subject=attack, name=attack))

    assert set(mail.keys()) == EXPECTED
    assert "injected" not in part(mail, "plain")
    assert [one.addr_spec for one in mail["To"].addresses] == ["ada@example.org"]


@given(st.text(max_size=200), st.text(max_size=100))
def test_subjects_and_names_of_any_kind_stay_where_they_are(subject: str, name: str) -> None:
    letter = write(subject=subject, name=name)
    mail = read(letter)

    assert set(mail.keys()) == EXPECTED
    assert [one.addr_spec for one in mail["From"].addresses] == ["mail@example.org"]
    assert part(mail, "plain") == "Thank you.\n"
    assert letter.content.isascii()
    assert max(len(line) for line in letter.content.split(b"\r\n")) <= 998


def test_text_and_html_arrive_as_they_were_written() -> None:
    text = "Für Łódź\n.\nFrom here\n" + "x" * 2000 + "\n"
    letter = write(subject="Żółć " * 30, text=text, html="<p>水 &amp; 川</p>\n")
    mail = read(letter)

    assert mail.get_content_type() == "multipart/alternative"
    assert part(mail, "plain") == text
    assert part(mail, "html") == "<p>水 &amp; 川</p>\n"
    assert mail["Subject"] == ("Żółć " * 30).strip()
    assert letter.content.isascii()  # no server on the way needs 8BITMIME
    assert b"\n" not in letter.content.replace(b"\r\n", b"")


def test_the_message_id_is_the_same_for_one_action_and_template() -> None:
    first, again = (read(write(text=text))["Message-ID"] for text in ("one", "two"))

    assert first == again
    assert first.startswith("<7.")
    assert first.endswith("@example.org>")
    names = {message_id(7, "ref", "a"), message_id(7, "ref", "b"), message_id(8, "ref", "a")}
    assert len({*names, message_id(7, "other", "a")}) == 4


def test_bounces_go_where_they_should() -> None:
    assert write().mail_from == "mail@example.org"
    assert write(bounces="bounces@example.org").mail_from == "bounces@example.org"


def test_internationalised_addresses_are_written_as_they_must_travel() -> None:
    domain = write(to="ada@bücher.example")
    local = write(to="żofia@bücher.example")

    assert (domain.to, domain.utf8) == ("ada@xn--bcher-kva.example", False)
    assert (local.to, local.utf8) == ("żofia@bücher.example", True)
    assert "To: żofia@bücher.example".encode() in local.content


def test_a_letter_is_printed_without_what_is_in_it() -> None:
    assert "ada" not in repr(write())


def test_links_to_unsubscribe_stand_in_headers_unfolded() -> None:
    url = "https://example.org/leave/" + "x" * 200 + "?ref={contact_ref}&action={action_id}&org={org}"
    links = UnsubscribeLinks(url, "leave@example.org")
    letter = write(headers=links.headers(ADA))

    link = url.format(contact_ref="fin%2Fger%20print", action_id=7, org="river_club")
    assert links.variables(ADA) == {"unsubscribe_link": link}
    expected = f"List-Unsubscribe: <{link}>,\r\n <mailto:leave@example.org?subject=unsubscribe>\r\n"
    assert expected.encode() in letter.content
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in letter.content


def test_one_click_is_promised_for_https_only() -> None:
    for links in (
        UnsubscribeLinks(None, "leave@example.org"),
        UnsubscribeLinks("http://localhost:8000/leave", None),
    ):
        assert set(links.headers(ADA)) == {"List-Unsubscribe"}
    assert UnsubscribeLinks(None, None).headers(ADA) == {}


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "http://example.org",
        "ftp://example.org",
        "https://",
        "https://a b",
        "https://ä.example",
    ],
)
def test_links_that_cannot_stand_in_a_mail_are_told_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="must be an address that begins with https://"):
        ConfirmLinks(url)
    with pytest.raises(ConfigError, match="must be an address that begins with https://"):
        UnsubscribeLinks(url, None)
    with pytest.raises(ConfigError, match="must be an address like"):
        UnsubscribeLinks(None, "leave@example.org>\r\nBcc: eve@example.org")


def test_links_to_confirm_are_those_of_the_server() -> None:
    asked = Recipient(**{name: getattr(ADA, name) for name in ADA.__struct_fields__} | {"opt_in": True})

    assert ConfirmLinks("https://act.example.org/").variables(ADA) == {
        "accept_link": "https://act.example.org/link/s/7/accept/fin%2Fger%20print",
        "reject_link": "https://act.example.org/link/s/7/reject/fin%2Fger%20print",
    }
    assert ConfirmLinks("https://act.example.org").variables(asked)["accept_link"].endswith("?doi=1")
