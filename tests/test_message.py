"""What a message tells about itself."""

from typing import Any

import pytest

from flow.batch import Batch, Trigger
from flow.errors import DecodeError
from flow.message import Message, Properties, rejections
from tests.messages import MemoryOrigin


class Unreadable(MemoryOrigin):
    def properties(self, header: bytes) -> Properties:
        raise DecodeError("unreadable properties")


def test_exchange_and_routing_key_are_cut_from_the_method_frame() -> None:
    """R16: what the broker says of a message is decoded when it is asked for."""
    origin = MemoryOrigin()
    message: Message[Any] = Message(origin, 1, False, b"\x07deliver\x04\xff.b!", b"\x00" * 14, b"", 0.0)

    assert message.exchange == "deliver"
    assert message.routing_key == "\udcff.b!"


@pytest.mark.parametrize(
    ("deaths", "count"),
    [
        (None, 0),
        ("garbage", 0),
        ([], 0),
        ([{"queue": "q", "reason": "rejected", "count": 3}], 3),
        (
            [
                {"queue": "system.retry", "reason": "expired", "count": 7},
                {"queue": "q", "reason": "rejected"},
            ],
            1,
        ),
        ([{"queue": "other", "reason": "rejected", "count": 7}], 0),
        ([{"queue": "q", "reason": "expired", "count": 7}], 0),
        ([{"queue": "q", "reason": "rejected", "count": "many"}], 1),
    ],
)
def test_only_rejections_of_the_own_queue_count_as_attempts(deaths: object, count: int) -> None:
    """Entries are found by queue and reason; forged ones can only park early."""
    assert rejections(deaths, "q") == count


def test_unreadable_properties_count_as_a_first_attempt() -> None:
    message: Message[Any] = Unreadable().message(b"x")
    message.header += b"x-death"

    assert message.attempt == 1
    with pytest.raises(DecodeError):
        _ = message.headers


def test_nothing_personal_is_shown() -> None:
    message: Message[Any] = MemoryOrigin().message({"email": "alice@example.org"})
    message.body = {"email": "alice@example.org"}
    batch = Batch([message], "alice@example.org", "default", Trigger.SIZE)

    assert "alice" not in repr(message) + repr(batch)


def test_a_batch_refuses_wrong_marks() -> None:
    """A second mark and a message that is not in it."""
    origin = MemoryOrigin()
    inside, outside = origin.message(1), origin.message(2)
    batch = Batch([inside], None, "default", Trigger.SIZE)
    batch.retry(inside, "busy")

    with pytest.raises(ValueError, match="is marked already"):
        batch.reject(inside, "bad")
    with pytest.raises(ValueError, match="is not in this batch"):
        batch.skip(outside, "none")
