"""What the SQS pipeline forwards to a real server of SQS."""

import json
from typing import Any

import pytest

from flow.demo import signatures
from flow.outcome import Outcome
from flow.pytest_plugin import Configure
from flow.testing import run_messages
from pipelines.sqs import Sqs
from tests.bodies import sample
from tests.targets.sqs_server import SqsServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws")]
FORWARDED = ["action", "action_encrypted", "action_old", "action_old_encrypted", "email_status"]


@pytest.fixture
def pipeline(sqs: SqsServer, configured: Configure, request: pytest.FixtureRequest) -> tuple[Sqs, str]:
    """The pipeline, and the URL of a queue of its own."""
    url = sqs.queue(getattr(request, "param", "signatures"))
    settings = {"SQS_QUEUE_URL": url, "SQS_REGION": "eu-central-1", "SQS_ENDPOINT": sqs.url}
    return configured(Sqs, settings), url


async def test_messages_arrive_byte_for_byte_with_what_to_filter_by(
    pipeline: tuple[Sqs, str], sqs: SqsServer
) -> None:
    running, url = pipeline
    bodies = [sample(name) for name in FORWARDED]

    results = await run_messages(running, bodies)

    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    arrived = {one["Body"].encode(): attributes(one) for one in sqs.received(url)}
    assert set(arrived) == set(bodies)
    assert arrived[sample("action")] == {
        "Schema": "proca:action:2",
        "Stage": "deliver",
        "CampaignName": json.loads(sample("action"))["campaign"]["name"],
        "ActionType": json.loads(sample("action"))["action"]["actionType"],
    }
    assert arrived[sample("action_old")]["Schema"] == "proca:action:1"
    assert arrived[sample("email_status")]["Stage"] == "email_status"


async def test_test_actions_are_skipped_and_others_go_in_tens(
    pipeline: tuple[Sqs, str], sqs: SqsServer
) -> None:
    running, url = pipeline
    actions = [signatures.action(n, testing=n == 3) for n in range(1, 26)]

    results = await run_messages(running, actions)

    assert [n for n, result in enumerate(results, 1) if result.outcome is Outcome.SKIPPED] == [3]
    assert sorted(json.loads(one["Body"])["actionId"] for one in sqs.received(url)) == [
        n for n in range(1, 26) if n != 3
    ]
    assert max(result.batch.size for result in results if result.batch) == 10


@pytest.mark.parametrize("pipeline", ["signatures.fifo"], indirect=True)
async def test_what_is_forwarded_again_is_in_a_fifo_queue_once(
    pipeline: tuple[Sqs, str], sqs: SqsServer
) -> None:
    running, url = pipeline

    for _ in range(2):
        await run_messages(running, [sample("action"), sample("email_status")])

    assert len(sqs.received(url)) == 2


async def test_a_message_that_sqs_will_never_take_is_parked_alone(
    pipeline: tuple[Sqs, str], sqs: SqsServer
) -> None:
    running, url = pipeline
    large = json.loads(sample("action"))
    large["action"]["customFields"] = {"comment": "x" * 300_000}

    parked, delivered = await run_messages(running, [large, sample("action")])

    assert (parked.outcome, delivered.outcome) == (Outcome.PARKED, Outcome.DELIVERED)
    assert parked.reason.startswith("it is larger than SQS takes")
    assert len(sqs.received(url)) == 1


async def test_a_message_of_ids_only_is_parked(pipeline: tuple[Sqs, str], sqs: SqsServer) -> None:
    running, url = pipeline

    parked, delivered = await run_messages(running, [sample("ids_supporter"), sample("action")])

    assert (parked.outcome, delivered.outcome) == (Outcome.PARKED, Outcome.DELIVERED)
    assert parked.reason == "schema proca:ids:1 is not read by this pipeline"
    assert len(sqs.received(url)) == 1


def attributes(message: dict[str, Any]) -> dict[str, str]:
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
