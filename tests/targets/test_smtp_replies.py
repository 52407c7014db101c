"""What a reply of a mail server means, as a table."""

import pytest

from flow.targets.smtp_replies import Meaning, Reply, Stage, meaning

AWAY, AGAIN, PARK, BOUNCE = Meaning.AWAY, Meaning.AGAIN, Meaning.PARK, Meaning.BOUNCE
LOGIN, SENDER, RECIPIENT, CONTENT = Stage.LOGIN, Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT
TABLE = [
    # what is said of the recipient
    (RECIPIENT, 550, "5.1.1 no such user", BOUNCE),
    (RECIPIENT, 553, "5.1.3 bad syntax", BOUNCE),
    (RECIPIENT, 556, "5.1.10 null MX", BOUNCE),
    (RECIPIENT, 550, "no such user here", BOUNCE),
    (RECIPIENT, 550, "5.1.7 bad sender", PARK),
    (RECIPIENT, 550, "5.1.8 sender domain not found", PARK),
    (RECIPIENT, 550, "5.7.1 blocked by policy", PARK),
    (RECIPIENT, 552, "5.2.2 mailbox full", PARK),
    (RECIPIENT, 553, "not allowed", PARK),
    (RECIPIENT, 501, "syntax", PARK),
    (RECIPIENT, 500, "what?", PARK),
    (RECIPIENT, 554, "5.7.1 relay access denied", PARK),
    (RECIPIENT, 550, "4.2.1 odd", PARK),
    (RECIPIENT, 530, "5.7.0 authentication required", AWAY),
    (RECIPIENT, 450, "4.2.0 greylisted", AGAIN),
    (RECIPIENT, 450, "4.1.1 not yet known", AGAIN),
    (RECIPIENT, 451, "try later", AGAIN),
    (RECIPIENT, 421, "closing", AGAIN),
    (RECIPIENT, -1, "no reply code at all", AGAIN),
    # a 5xx anywhere else never touches the supporter
    (LOGIN, 535, "5.7.8 bad credentials", AWAY),
    (LOGIN, 454, "4.7.0 later", AWAY),
    (LOGIN, 550, "5.1.1 odd", AWAY),
    (SENDER, 550, "5.1.0 sender rejected", PARK),
    (SENDER, 550, "", PARK),
    (SENDER, 553, "5.1.8 no such domain", PARK),
    (SENDER, 530, "5.7.0 STARTTLS first", AWAY),
    (SENDER, 503, "HELO first", AWAY),
    (SENDER, 421, "too busy", AWAY),
    (SENDER, 550, "5.4.5 daily quota", AWAY),
    (SENDER, 451, "later", AGAIN),
    (SENDER, 450, "4.1.8 domain not found", AGAIN),
    (SENDER, 452, "no room", AWAY),
    (SENDER, 452, "4.3.1 no room", AWAY),
    (SENDER, 451, "4.3.0 queue file write error", AWAY),
    (SENDER, 454, "Throttling failure", AWAY),
    (RECIPIENT, 454, "4.7.1 relay access denied", AGAIN),  # perhaps of this one only: it must hold up nobody
    (RECIPIENT, 452, "4.2.2 mailbox full", AGAIN),
    (CONTENT, 454, "Throttling failure", AWAY),
    (CONTENT, 550, "5.1.1 odd", PARK),
    (CONTENT, 554, "5.7.1 spam", PARK),
    (CONTENT, 552, "5.3.4 too large", PARK),
    (CONTENT, 550, "5.4.5 daily quota", AWAY),
    (CONTENT, 421, "closing", AGAIN),
    (CONTENT, 452, "4.3.1 disk full", AGAIN),
]


@pytest.mark.parametrize(("stage", "code", "text", "expected"), TABLE)
def test_replies_are_judged(stage: Stage, code: int, text: str, expected: Meaning) -> None:
    assert meaning(stage, Reply.of(code, text)) is expected


def test_only_recipients_bounce() -> None:
    for stage in (LOGIN, SENDER, CONTENT):
        for code in range(400, 600):
            for text in ("", "5.1.1 unknown", "5.1.10", "5.2.1"):
                assert meaning(stage, Reply.of(code, text)) is not BOUNCE


def test_the_text_of_a_reply_is_not_kept() -> None:
    reply = Reply.of(550, "5.1.1 <ada@example.org> unknown")

    assert str(reply) == "550 5.1.1"
    assert "ada" not in repr(reply)


@pytest.mark.parametrize(
    "text", ["5.1.1x", "x 5.1.1", "55.1.1", "5.1", "3.1.1 ok", "", "5.1.1234", "<a@example.org> 5.1.1"]
)
def test_what_only_looks_like_an_enhanced_code_is_none(text: str) -> None:
    assert Reply.of(550, text).enhanced is None
