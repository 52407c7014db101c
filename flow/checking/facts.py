"""What the arguments and policies of a queue mean for its messages; pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flow.checking.finding import Finding, caution, ok, unchecked, wrong
from flow.management import table
from flow.sizing import CONSUMER_TIMEOUT

FEW = 1000  # deliveries that a queue may see in its life: restarts and lost connections count, too
DELIVERY_LIMIT_SINCE = 4  # from this version on quorum queues drop a message after 20 deliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """One queue as the management API tells of it."""

    name: str
    kind: str = "classic"
    arguments: Mapping[str, Any]
    policy: Mapping[str, Any]
    """What all policies on it come to."""
    policy_name: str = ""
    durable: bool = True
    automatic: bool = False
    """Whether it goes with its last consumer, or with the connection that made it."""
    consumers: int = 0
    messages: int = 0
    """Those ready, those in somebody's hands, and those on their way to another queue."""

    @classmethod
    def read(cls, answer: Any) -> "QueueFacts":
        """Read the answer of the management API to a question for a queue."""
        told = table(answer)
        return cls(
            name=str(told.get("name", "")),
            kind=str(told.get("type", "classic")),
            arguments=table(told.get("arguments")),
            policy=table(told.get("effective_policy_definition")),
            policy_name=str(told.get("policy") or ""),
            durable=told.get("durable", True) is True,
            automatic=told.get("auto_delete") is True or told.get("exclusive") is True,
            consumers=int(told.get("consumers") or 0),
            messages=int(told.get("messages") or 0),
        )

    def setting(self, name: str) -> Any:
        """Return a setting like `message-ttl`: the argument of the queue, or else that of its policies."""
        return self.arguments.get(f"x-{name}", self.policy.get(name))


def dangers(queue: QueueFacts, version: str) -> list[Finding]:
    """Return what may drop messages of a work queue without a word, on a broker of this *version*."""
    found = [wrong(f"{queue.name} {sentence}") for sentence in _dropping(queue, version)]
    if not found:
        found.append(ok(f"{queue.name} has no TTL, no limit that drops, and does not count deliveries"))
    return found


def _dropping(queue: QueueFacts, version: str) -> Iterator[str]:
    # RabbitMQ drops what died a second time in the same cycle without having been rejected
    # (rabbitmq.com/docs/dlx), and says so in its own log only.
    if queue.setting("message-ttl") is not None:
        yield "has a message TTL: what expires is dropped by the retry loop; remove it"
    for limit in ("max-length", "max-length-bytes"):
        if queue.setting(limit) is not None and queue.setting("overflow") != "reject-publish":
            yield f"drops its oldest messages when full ({limit}): set overflow to reject-publish"
    if queue.setting("expires") is not None:
        yield "is deleted with its messages when unused for a while (expires): remove that"
    limit = queue.setting("delivery-limit")
    if queue.kind != "quorum":
        return
    if isinstance(limit, int) and 0 <= limit < FEW:
        yield f"drops a message after {limit} interrupted deliveries: set its delivery-limit to 1000000"
    elif limit is None and major(version) >= DELIVERY_LIMIT_SINCE:
        yield "drops a message after 20 interrupted deliveries: set its delivery-limit to 1000000"


def dead_lettering(queue: QueueFacts) -> Finding:
    """Say whether a rejected message survives a crash of the broker on its way out of *queue*."""
    strategy, overflow = queue.setting("dead-letter-strategy"), queue.setting("overflow")
    if (queue.kind, strategy, overflow) == ("quorum", "at-least-once", "reject-publish"):
        return ok(f"{queue.name} hands rejected messages on at least once")
    return caution(
        f"{queue.name} hands rejected messages on at most once: a crash of the broker may lose some; "
        "a quorum queue with dead-letter-strategy at-least-once and overflow reject-publish would not"
    )


def patience(queue: QueueFacts, longest: float) -> Finding:
    """Compare the queue's own `consumer_timeout` with the *longest* time in seconds that a message takes."""
    timeout = queue.setting("consumer-timeout")
    if not isinstance(timeout, int):
        return unchecked(
            f"the consumer_timeout of the broker: no policy sets one for {queue.name}, and the configuration "
            f"is not shown; usual are {CONSUMER_TIMEOUT} s"
        )
    said = (
        f"the broker waits {timeout / 1000:g} s for an acknowledgement from {queue.name} (consumer_timeout)"
    )
    if timeout / 1000 <= longest:
        return wrong(f"{said}, but by its timeouts a message may take {longest:g} s: change one of them")
    return ok(said)


def permitted(pattern: Any, name: str) -> bool | None:
    """Tell whether a permission *pattern* covers *name*; None: it cannot be read here."""
    if not isinstance(pattern, str):
        return None
    if not pattern:
        return False
    try:
        return re.search(pattern, name) is not None
    except re.error:  # RabbitMQ knows patterns that Python does not
        return None


def major(version: str) -> int:
    """Return the first number of a version; 0 when there is none."""
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0
