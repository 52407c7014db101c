"""Which arguments and policies of a queue are dangerous."""

from typing import Any

import pytest

from flow.checking.facts import QueueFacts, dangers, dead_lettering, major, patience, permitted

SAFE = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def queue(kind: str = "quorum", policy: Any = None, **arguments: Any) -> QueueFacts:
    given = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    answer = {"name": "acme.crm", "type": kind, "arguments": given}
    return QueueFacts.read(answer | {"effective_policy_definition": policy or []})


def said(facts: QueueFacts, version: str = "3.10.8") -> list[str]:
    return [f"{finding.state}: {finding.text}" for finding in dangers(facts, version)]


def test_a_queue_of_flow_setup_is_safe() -> None:
    facts = QueueFacts.read({"name": "acme.crm", "type": "quorum", "arguments": SAFE})

    assert [finding.state for finding in dangers(facts, "4.1.0")] == ["ok"]
    assert dead_lettering(facts).state == "ok"


@pytest.mark.parametrize(
    ("facts", "version", "word"),
    [
        (queue(message_ttl=1000), "3.10.8", "message TTL"),
        (queue(policy={"message-ttl": 1000}), "3.10.8", "message TTL"),
        (queue(max_length=10), "3.10.8", "max-length"),
        (queue(max_length=10, overflow="drop-head"), "3.10.8", "max-length"),
        (queue(max_length_bytes=10, overflow="reject-publish-dlx"), "3.10.8", "max-length-bytes"),
        (queue(policy={"expires": 1000}), "3.10.8", "expires"),
        (queue(delivery_limit=20), "3.10.8", "after 20 interrupted"),
        (queue(policy={"delivery-limit": 0}), "3.10.8", "after 0 interrupted"),
        (queue(), "4.0.5", "after 20 interrupted"),
    ],
)
def test_what_drops_messages_is_wrong(facts: QueueFacts, version: str, word: str) -> None:
    [sentence] = said(facts, version)

    assert sentence.startswith("wrong: acme.crm ")
    assert word in sentence


@pytest.mark.parametrize(
    ("facts", "version"),
    [
        (queue(max_length=10, overflow="reject-publish"), "3.10.8"),
        (queue(max_length=10, policy={"overflow": "reject-publish"}), "3.10.8"),
        (queue(delivery_limit=1_000_000), "4.0.5"),
        (queue(delivery_limit=-1), "4.0.5"),
        (queue(), "3.13.7"),
        (queue("classic"), "4.0.5"),
    ],
)
def test_what_drops_nothing_is_not(facts: QueueFacts, version: str) -> None:
    [sentence] = said(facts, version)

    assert sentence.startswith("ok: ")


def test_an_argument_goes_before_a_policy() -> None:
    assert queue(policy={"overflow": "drop-head"}, overflow="reject-publish").setting("overflow") == (
        "reject-publish"
    )


@pytest.mark.parametrize(
    "facts",
    [queue("classic"), queue(), queue(dead_letter_strategy="at-least-once")],
)
def test_at_most_once_is_a_caution(facts: QueueFacts) -> None:
    assert dead_lettering(facts).state == "caution"


@pytest.mark.parametrize(
    ("timeout", "state"),
    [(None, "not checked"), (180_000, "wrong"), (180_001, "ok"), ("soon", "not checked")],
)
def test_patience_of_the_queue_is_compared_with_the_timeouts(timeout: Any, state: str) -> None:
    assert patience(queue(policy={"consumer-timeout": timeout}), 180.0).state == state


@pytest.mark.parametrize(
    ("pattern", "name", "may"),
    [
        (r"^acme\.crm$", "acme.crm", True),
        ("crm", "acme.crm", True),
        ("^$", "acme.crm", False),
        ("", "acme.crm", False),
        (r"^(?<n>acme)", "acme.crm", None),
        (None, "acme.crm", None),
    ],
)
def test_permissions_are_read_as_the_broker_does(pattern: Any, name: str, may: bool | None) -> None:
    assert permitted(pattern, name) is may


def test_a_strange_version_is_no_new_one() -> None:
    assert (major("4.1.0"), major("3.13.7"), major("")) == (4, 3, 0)
