"""What the SQS target does with a real server of SQS, and with one that answers as it is told."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.responses import Response

from flow.errors import ConfigError
from flow.outcome import Reject, Retry, Unavailable
from flow.targets.sqs import Entry, SqsTarget, region_in
from tests.targets.receiver import Receiver, receiving
from tests.targets.sqs_server import SqsServer

pytestmark = pytest.mark.anyio
ATTRIBUTES = {
    "Schema": "proca:action:2",
    "Stage": "",
    "CampaignName": "a\x00b\x1bc\td\ufffee\U0001f642",
    "ActionType": "\x0b\uffff",
}
QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/signatures"


@pytest.fixture(autouse=True)
def _credentials(aws: None) -> None:
    """Give every test of this file some."""


@asynccontextmanager
async def answering(status: int, answer: Any, **options: Any) -> AsyncIterator[tuple[SqsTarget, Receiver]]:
    """Open a target whose server gives this *answer* to every call."""
    async with receiving() as receiver:
        receiver.says(status, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(answer).encode())
        endpoint = f"http://127.0.0.1:{receiver.port}"
        async with SqsTarget(QUEUE_URL, endpoint=endpoint, **options) as target:
            yield target, receiver


def entries(count: int, size: int = 2) -> list[Entry]:
    return [Entry(body=json.dumps({"n": n}).ljust(size).encode()) for n in range(count)]


def failure(number: int, code: str, sender: bool) -> dict[str, Any]:
    return {"Id": str(number), "Code": code, "SenderFault": sender, "Message": "a person's name"}


async def test_what_is_sent_arrives_with_its_attributes(sqs: SqsServer) -> None:
    url = sqs.queue("plain")
    body = '{"name": "Łucja \uffff \U0001f642"}'

    async with SqsTarget(url, region="eu-central-1", endpoint=sqs.url) as target:
        entry = Entry(body=body.encode(), attributes=ATTRIBUTES)
        assert await target.send([entry]) == [None]

    (arrived,) = sqs.received(url)
    assert json.loads(arrived["Body"]) == json.loads(body)
    assert {name: value["StringValue"] for name, value in arrived["MessageAttributes"].items()} == {
        "Schema": "proca:action:2",
        "CampaignName": "abc\tde\U0001f642",
    }


async def test_more_than_ten_and_more_than_the_limit_go_in_several_calls(sqs: SqsServer) -> None:
    url = sqs.queue("many")

    async with SqsTarget(url, region="eu-central-1", endpoint=sqs.url) as target:
        assert await target.send([*entries(23), *entries(5, size=100_000)]) == [None] * 28

    assert len(sqs.received(url)) == 28


async def test_a_call_carries_ten_entries_and_the_limit_at_most() -> None:
    async with answering(200, {"Successful": [], "Failed": []}, limit=100) as (target, receiver):
        await target.send([*entries(12), *entries(3, size=40)])

    calls = [json.loads(post.body)["Entries"] for post in receiver.posts]
    assert [len(call) for call in calls] == [10, 4, 1]  # 2 of 8 bytes and 2 of 40, then one of 40
    assert max(sum(len(one["MessageBody"]) for one in call) for call in calls) <= 100


async def test_what_counts_is_bytes_of_bodies_and_attributes() -> None:
    """As SQS counts: names, types and values of attributes, and letters as UTF-8."""
    body = json.dumps("水" * 10, ensure_ascii=False).encode()
    entry = Entry(body=body, attributes={"CampaignName": "水水", "Stage": ""})

    async with answering(200, {"Successful": [], "Failed": []}, limit=112) as (target, receiver):
        await target.send([entry] * 3)
    async with answering(200, {"Successful": [], "Failed": []}, limit=111) as (narrow, more):
        await narrow.send([entry] * 3)

    assert entry.size == 32 + len("CampaignName") + len("String") + 6 == 56
    assert [len(json.loads(post.body)["Entries"]) for post in receiver.posts] == [2, 1]
    assert [len(json.loads(post.body)["Entries"]) for post in more.posts] == [1, 1, 1]


async def test_a_message_that_is_too_large_is_rejected_and_its_neighbours_are_not(sqs: SqsServer) -> None:
    url = sqs.queue("large")

    async with SqsTarget(url, region="eu-central-1", endpoint=sqs.url) as target:
        first, large, last = await target.send([*entries(1), *entries(1, size=262_145), *entries(1)])

    assert (first, last) == (None, None)
    assert isinstance(large, Reject)
    assert large.reason == "it is larger than SQS takes: 262145 of 262144 bytes"
    assert len(sqs.received(url)) == 2


async def test_fifo_queues_take_a_deduplication_id_once_and_keep_the_order_of_a_group(sqs: SqsServer) -> None:
    url = sqs.queue("ordered.fifo")
    sent = [
        Entry(body=json.dumps({"n": n}).encode(), group=f"page-{n % 2}", deduplication=f"id-{n}")
        for n in range(6)
    ]

    async with SqsTarget(url, region="eu-central-1", endpoint=sqs.url) as target:
        assert await target.send(sent) == [None] * 6
        assert await target.send(sent) == [None] * 6

    numbers = [json.loads(one["Body"])["n"] for one in sqs.received(url)]
    assert sorted(numbers) == [0, 1, 2, 3, 4, 5]
    assert [n for n in numbers if n % 2] == [1, 3, 5]


async def test_each_entry_is_decided_by_what_sqs_says_of_it() -> None:
    answer = {
        "Successful": [{"Id": "0", "MessageId": "a", "MD5OfMessageBody": "x"}],
        "Failed": [
            failure(1, "InvalidMessageContents", True),
            failure(2, "InternalError", False),
            failure(3, "AWS.SimpleQueueService.InvalidAttributeValue", True),
            failure(4, "AccessDenied", True),
        ],
    }
    async with answering(200, answer) as (target, _):
        verdicts = await target.send(entries(6))

    assert [type(verdict) for verdict in verdicts] == [type(None), Reject, Retry, Reject, Retry, Retry]
    assert [verdict.reason for verdict in verdicts if verdict] == [
        "SQS will not take it: InvalidMessageContents",
        "SQS does not take it now: InternalError",
        "SQS will not take it: AWS.SimpleQueueService.InvalidAttributeValue",
        "SQS does not take it now: AccessDenied",
        "SQS did not say what became of it",
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "AWS.SimpleQueueService.NonExistentQueue"),
        (403, "AccessDenied"),
        (403, "InvalidClientTokenId"),
        (400, "KMSDisabledException"),
        (400, "ThrottlingException"),
        (503, "ServiceUnavailable"),
    ],
)
async def test_a_refusal_of_all_costs_no_attempt(status: int, code: str) -> None:
    async with answering(status, {"__type": f"com.amazonaws.sqs#{code}", "message": "x"}) as (
        target,
        receiver,
    ):
        with pytest.raises(Unavailable, match=f"^SQS refuses the call: {code}$"):
            await target.send(entries(2))

    assert len(receiver.posts) == 1, "only flow tries again"


async def test_a_refusal_of_the_contents_condemns_only_who_is_alone() -> None:
    answer = {"__type": "com.amazonaws.sqs#InvalidMessageContents", "message": "x"}
    async with answering(400, answer) as (target, _):
        assert [type(verdict) for verdict in await target.send(entries(2))] == [Retry, Retry]
        assert [type(verdict) for verdict in await target.send(entries(1))] == [Reject]


async def test_what_fails_in_the_middle_keeps_what_is_stored() -> None:
    """The second call is refused as a whole: the entries of the first are stored, and not sent again."""
    async with answering(200, {}) as (target, receiver):
        stored = json.dumps({"Successful": [{"Id": str(n)} for n in range(10)]}).encode()
        answers = [
            Response(stored, 200),
            Response(b'{"__type":"com.amazonaws.sqs#AccessDenied"}', 403),
        ]
        receiver.answer = lambda: answers.pop(0)
        verdicts = await target.send(entries(12))

    assert verdicts[:10] == [None] * 10
    assert [type(verdict) for verdict in verdicts[10:]] == [Retry, Retry]


async def test_a_server_that_fails_or_breaks_off_means_another_attempt() -> None:
    async with answering(500, {"__type": "com.amazonaws.sqs#InternalError"}) as (target, _):
        assert [type(verdict) for verdict in await target.send(entries(1))] == [Retry]
    async with answering(200, {}, timeout=0.3) as (target, receiver):

        async def hang(scope: Any, receive: Any, send: Any) -> None:
            await anyio.sleep(2.0)

        receiver.answer = lambda: hang
        (verdict,) = await target.send(entries(1))
    assert isinstance(verdict, Retry)
    assert verdict.reason.startswith("the call to SQS broke off")


async def test_a_server_that_is_away_costs_no_attempt() -> None:
    async with SqsTarget(QUEUE_URL, endpoint="http://127.0.0.1:9") as target:
        with pytest.raises(Unavailable, match=r"^SQS cannot be reached \(EndpointConnectionError\)$"):
            await target.send(entries(1))


async def test_what_is_too_large_is_no_sign_of_life_of_a_server_that_is_away() -> None:
    """Nothing was stored before: the rest costs no attempt."""
    async with SqsTarget(QUEUE_URL, endpoint="http://127.0.0.1:9", limit=100) as target:
        with pytest.raises(Unavailable, match=r"^SQS cannot be reached"):
            await target.send([*entries(1, 101), *entries(1)])


async def test_missing_credentials_and_region_are_told_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="the region of SQS is not known: set AWS_DEFAULT_REGION"):
        async with SqsTarget("https://queue.example.org/1/signatures"):
            pass
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigError, match="no AWS credentials were found"):
        async with SqsTarget(QUEUE_URL):
            pass


@pytest.mark.parametrize("url", ["signatures", "https://sqs.eu-central-1.amazonaws.com/", "ftp://a/b"])
def test_a_queue_is_named_by_its_url(url: str) -> None:
    with pytest.raises(ConfigError, match="the URL of the SQS queue must begin with https://"):
        SqsTarget(url)


def test_the_region_is_read_from_the_url() -> None:
    assert region_in("sqs.eu-central-1.amazonaws.com") == "eu-central-1"
    assert region_in("sqs.cn-north-1.amazonaws.com.cn") == "cn-north-1"
    assert region_in("localhost") is None


def test_an_entry_shows_no_contents() -> None:
    assert repr(Entry(body=b'{"email": "jane@example.org"}')) == "<Entry of 29 bytes>"
