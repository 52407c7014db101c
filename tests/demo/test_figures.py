"""The figures are those of flow, of the broker and of the people."""

import pytest

from flow.account import Account
from flow.batch import Trigger
from flow.broker.url import BrokerUrl
from flow.demo.figures import batch_note, figures_of, table
from flow.demo.people import People
from flow.metrics import PipelineMetrics
from flow.pipeline import Pipeline
from flow.runner import Runner
from flow.schema import ActionMessage

pytestmark = pytest.mark.anyio
NAMES = {
    "crm-acme": "acme.crm",
    "crm-sady": "sady.crm",
    "confirm": "system.email.confirm",
    "thank_you": "system.email.thankyou",
    "sqs": "system.sqs",
    "moderate": "sady.moderate",
}


class Nothing(Pipeline[ActionMessage]):
    queue = "acme.crm"

    async def handle_message(self, message: object) -> ActionMessage:
        raise NotImplementedError


def runner(name: str, queue: str) -> Runner:
    made = Runner(Nothing.configured({}, name=name, queue=queue), BrokerUrl.parse("amqp://127.0.0.1"))
    account = made.metrics.account(queue)
    account.received, account.delivered, account.skipped, account.retrying, account.parked = 12, 4, 3, 2, 1
    return made


async def test_figures_are_those_of_flow_the_broker_and_the_people() -> None:
    people = People(print)
    people.thinking.update(supporters=5, moderator=6)
    people.answered.update(supporters=70, moderator=80)
    ready = {"acme.crm": 7, "sady.moderate": 9, "system.retry": 8, "system.dead": 1}

    found = figures_of(100, 11, {name: runner(name, queue) for name, queue in NAMES.items()}, ready, people)

    assert [(one.name, one.now, one.total) for one in found] == [
        ("submitted", 11, 100),
        ("mails to confirm", 2, 4),
        ("links followed", 5, 70),
        ("moderated", 9 + 2 + 6, 80),
        ("told the CRM", 7 + 2 + 2, 8),
        ("thank-you mails", 2, 4),
        ("sent to SQS", 2, 4),
        ("skipped", None, 18),
        ("tried again", 8, 12),
        ("parked", 1, 6),
    ]
    assert [one.name for one in found if one.main] == ["told the CRM"]


async def test_accounts_stand_below_their_names() -> None:
    lines = table({"crm-acme": Account(received=123, delivered=120, parked=3), "sqs": Account()})

    assert lines == [
        "  pipeline      received  delivered  skipped  retrying  parked  returned  stale",
        "  crm-acme           123        120        0         0       3         0      0",
        "  sqs                  0          0        0         0       0         0      0",
    ]


async def test_batches_are_told_in_one_line() -> None:
    metrics = PipelineMetrics("crm", ["default"])
    assert batch_note([metrics]) == "batches: none closed yet; 0.0 messages, 0 ms each"

    metrics.batch_triggers["default", Trigger.SIZE] = 2
    metrics.batch_triggers["default", Trigger.TIMEOUT] = 1
    metrics.batch_size["default"].observe_many(100, 2)
    metrics.batch_size["default"].observe(40)
    metrics.batch_seconds["default"].observe_many(0.02, 3)

    assert batch_note([metrics]) == "batches: 2 by size, 1 by timeout; 80.0 messages, 20 ms each"
