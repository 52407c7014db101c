"""Lines of JSON: what is right is read; what is wrong gets one sentence that holds nothing of the line."""

import msgspec
import pytest

from flow.errors import DecodeError
from flow.plumbing.submission import Action, ActionPage, Campaign, Organisation, read

PAGE = '"actionPage": "canary/page"'
WRONG = {
    '{"canary": ': "it is not JSON: it ends too early",
    '["canary"]': "it is not a JSON object",
    '{"type": "canary"}': "type must be one of organisation, campaign, actionPage, action",
    '{"type": ["canary"]}': "type must be one of organisation, campaign, actionPage, action",
    "{}": "actionPage is missing",
    f'{{{PAGE}, "actionTyp": 7}}': "the action has a field that is not known; did you mean actionType?",
    f'{{{PAGE}, "privacy": {{"optin": true}}}}': (
        "the privacy has a field that is not known; did you mean optIn?"
    ),
    f'{{{PAGE}, "testing": "canary"}}': "testing is not true or false",
    f'{{{PAGE}, "createdAt": "canary"}}': "createdAt is not a time",
    f'{{{PAGE}, "customFields": {{"canary": {{}}}}}}': "customFields[...] is not",
    f'{{{PAGE}, "contact": {{}}}}': "contact needs an email, or the contactRef of a supporter who is known",
    f'{{{PAGE}, "contact": {{"email": "canary"}}}}': "contact.email is not an e-mail address",
    f'{{{PAGE}, "contact": {{"email": 7}}}}': "contact.email is not text",
    f'{{{PAGE}, "contact": {{"contactRef": ""}}}}': "contact.contactRef must have 1 to 64 letters",
    f'{{{PAGE}, "contact": {{"email": "a@example.org", "area": "{"canary" * 3}"}}}}': "contact.area is",
    f'{{{PAGE}, "tracking": {{"source": 7}}}}': "tracking.source is not text",
    f'{{{PAGE}, "donation": {{"amount": "canary"}}}}': "donation.amount is not a number",
    f'{{{PAGE}, "actionType": "canary\\u0000"}}': "it holds a NUL character, which cannot be stored",
    '{"type": "organisation", "name": "canary.org"}': "must not contain a dot",
    '{"type": "organisation", "name": "canary", "publicKey": "canary"}': "publicKey is not 32 bytes in",
    '{"type": "campaign", "name": "canary"}': "organisation is missing",
    '{"type": "actionPage", "name": "canary", "organisation": "canary"}': "campaign is missing",
    "[" * 200 + "]" * 200: "it is nested deeper than 100 levels",
}


@pytest.mark.parametrize(("line", "sentence"), WRONG.items())
def test_a_wrong_line_gets_one_sentence_without_its_contents(line: str, sentence: str) -> None:
    with pytest.raises(DecodeError) as raised:
        read(line.encode())

    assert sentence in str(raised.value)
    # The name of an organisation is quoted: it is nobody's.
    assert "canary" not in str(raised.value).replace("'canary.org'", "")


def test_blank_lines_are_left_out() -> None:
    assert read(b"  \r") is None


def test_lines_are_told_apart_by_their_type() -> None:
    lines: list[tuple[str, type]] = [
        ('{"type": "organisation", "name": "acme"}', Organisation),
        ('{"type": "campaign", "name": "c", "organisation": "acme"}', Campaign),
        ('{"type": "actionPage", "name": "p", "campaign": "c", "organisation": "acme"}', ActionPage),
        ('{"type": "action", "actionPage": "p"}', Action),
        ('{"actionPage": "p"}', Action),
    ]

    for line, kind in lines:
        assert type(read(line.encode())) is kind


def test_an_action_keeps_whatever_the_form_asked_and_shows_nothing() -> None:
    contact = {
        "email": " Ada@Example.org ",
        "firstName": "Ada",
        "favouriteRiver": "Danube",
        "contactRef": "r",
    }

    action = read(msgspec.json.encode({"actionPage": "p", "contact": contact}))

    assert isinstance(action, Action)
    assert (action.email, action.contact_ref) == ("ada@example.org", "r")
    assert action.personal == {name: value for name, value in contact.items() if name != "contactRef"}
    assert repr(action) == "<Action>"
