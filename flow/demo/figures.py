"""The figures of the story: each place on the way of a signature, how many are there and went through."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields

from flow.account import Account
from flow.demo.meter import Figure
from flow.demo.people import People
from flow.metrics import PipelineMetrics
from flow.runner import Runner
from flow.topology import DEAD_QUEUE, RETRY_QUEUE

STEPS = (
    ("mails to confirm", ("confirm",)),
    ("told the CRM", ("crm-acme", "crm-sady")),
    ("thank-you mails", ("thank_you",)),
    ("sent to SQS", ("sqs",)),
)


def figures_of(
    submitted: int, outbox: int, runners: Mapping[str, Runner], ready: Mapping[str, int], people: People
) -> list[Figure]:
    """Return the way of signatures in its order.

    *outbox* messages are not published yet; *ready* are the messages in the queues of the broker, by queue.
    """
    total = Account()
    for runner in runners.values():
        total.add(runner.account)
    mails, *rest = [step(name, [runners[one] for one in several], ready) for name, several in STEPS]
    moderating = waiting([runners["moderate"]], ready) + people.thinking["moderator"]
    return [
        Figure("submitted", outbox, submitted),
        mails,
        Figure("links followed", people.thinking["supporters"], people.answered["supporters"]),
        Figure("moderated", moderating, people.answered["moderator"]),
        *rest,
        Figure("skipped", None, total.skipped),
        Figure("tried again", ready.get(RETRY_QUEUE, 0), total.retrying),
        Figure("parked", ready.get(DEAD_QUEUE, 0), total.parked),
    ]


def step(name: str, runners: Sequence[Runner], ready: Mapping[str, int]) -> Figure:
    """Return the figure of some pipelines that do the same."""
    delivered = sum(runner.account.delivered for runner in runners)
    return Figure(name, waiting(runners, ready), delivered, main=name == "told the CRM")


def waiting(runners: Sequence[Runner], ready: Mapping[str, int]) -> int:
    """Return how many messages wait for some pipelines, or are being worked by them."""
    return sum(ready.get(runner.pipeline.queue, 0) + runner.account.open for runner in runners)


def table(accounts: Mapping[str, Account]) -> list[str]:
    """Return what each pipeline says of its deliveries; one that came again after a loss is there twice."""
    names = [one.name for one in fields(Account)]
    lines = [f"  {'pipeline':12}" + "".join(f"  {name}" for name in names)]
    for pipeline, account in accounts.items():
        cells = (f"  {getattr(account, name):{len(name)}}" for name in names)
        lines.append(f"  {pipeline:12}" + "".join(cells))
    return lines


def batch_note(several: Sequence[PipelineMetrics]) -> str:
    """Say how many batches were closed and by what, how large they are, and how long a delivery takes."""
    sizes = [(one.count, one.total) for metrics in several for one in metrics.batch_size.values()]
    calls = [(one.count, one.total) for metrics in several for one in metrics.batch_seconds.values()]
    triggers: defaultdict[str, int] = defaultdict(int)
    for metrics in several:
        for (_, trigger), count in metrics.batch_triggers.items():
            triggers[trigger.value] += count
    closed = ", ".join(f"{count} by {name}" for name, count in triggers.items() if count) or "none closed yet"
    return f"batches: {closed}; {mean(sizes):.1f} messages, {1000 * mean(calls):.0f} ms each"


def mean(parts: Sequence[tuple[int, float]]) -> float:
    """Return the mean of several counts and sums; 0.0 of nothing."""
    count = sum(number for number, _ in parts)
    return sum(total for _, total in parts) / count if count else 0.0
