"""What a policy does to a queue of ours, without a broker."""

from typing import Any

import pytest

from flow.checking.drift import queue_drifts
from flow.checking.facts import QueueFacts
from flow.topology import Queue

WANTED = Queue(name="acme.crm", arguments={"x-queue-type": "quorum"})


def drifts(**policy: Any) -> list[str]:
    """Return what is told of a queue as it is wanted, under a policy called house."""
    definition = {name.replace("_", "-"): value for name, value in policy.items()}
    there = QueueFacts(
        name="acme.crm", kind="quorum", arguments=WANTED.arguments, policy=definition, policy_name="house"
    )
    return list(queue_drifts(WANTED, there, "/"))


@pytest.mark.parametrize("limit", ["max_length", "max_length_bytes"])
@pytest.mark.parametrize(
    ("overflow", "told"),
    [({}, True), ({"overflow": "drop-head"}, True), ({"overflow": "reject-publish"}, False)],
)
def test_a_limit_is_told_unless_publishers_are_refused(
    limit: str, overflow: dict[str, str], told: bool
) -> None:
    sentence = (
        f"the queue acme.crm has {limit.replace('_', '-')} = 1000 by the policy house: "
        "it drops its oldest messages when full"
    )

    assert drifts(**{limit: 1000}, **overflow) == [sentence] * told


def test_time_limits_and_another_dead_letter_exchange_are_told() -> None:
    assert drifts(message_ttl=5, expires=6, dead_letter_exchange="x") == [
        "the queue acme.crm has message-ttl = 5 by the policy house: "
        "what expires is dropped by the retry loop",
        "the queue acme.crm has expires = 6 by the policy house: "
        "it is deleted with its messages when unused for a while",
        "the queue acme.crm has a dead-letter exchange by the policy house, which is not wanted",
    ]
