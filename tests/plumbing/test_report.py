import msgspec
import pytest

from flow.errors import DecodeError, Unanswered
from flow.plumbing.push import Outgoing, Unconfirmed
from flow.plumbing.report import read, written


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"a":  1 }',
        b"",
        b" {}",
        b'{"a":\n1}',
        b"{}\r",
        b"\xff",
        b"nonsense",
        '"ä"'.encode(),
        b"[" * 5000,
    ],
    ids=lambda body: repr(body[:10]),
)
def test_a_message_is_read_from_the_report_as_it_was(body: bytes) -> None:
    message = Outgoing(exchange="deliver", routing_key="acme.system.action", body=body)

    line = written(Unconfirmed(7, message, None))

    assert b"\n" not in line
    assert read(line) == message


@pytest.mark.parametrize(
    ("unconfirmed", "state", "reason"),
    [
        (Unconfirmed(1, Outgoing(exchange="e", routing_key="k", body=b"{}"), None), "not sent", None),
        (
            Unconfirmed(2, Outgoing(exchange="e", routing_key="k", body=b"{}"), Unanswered("broke"), True),
            "may have arrived",
            "broke",
        ),
        (
            Unconfirmed(3, Outgoing(exchange="e", routing_key="k", body=b"{}"), DecodeError("no")),
            "failed",
            "no",
        ),
    ],
)
def test_each_line_says_what_is_known(
    unconfirmed: Unconfirmed[Outgoing], state: str, reason: str | None
) -> None:
    line = msgspec.json.decode(written(unconfirmed))

    assert (line["state"], line.get("reason"), line["number"]) == (state, reason, unconfirmed.number)
    assert line["body"] == {}


@pytest.mark.parametrize("line", [b"", b"{}", b'{"name": "Secret"}', b"Secret", b"[" * 100_000])
def test_other_lines_are_refused_without_being_quoted(line: bytes) -> None:
    with pytest.raises(DecodeError, match="it is not of a report of flow push") as caught:
        read(line)

    assert "Secret" not in str(caught.value)
