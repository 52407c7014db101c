"""What the webhook pipeline sends to a real receiver, and that docs/webhook.md is right."""

import dataclasses
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.responses import Response

from flow.codec import Codec
from flow.demo import signatures
from flow.errors import ConfigError
from flow.message import Message
from flow.outcome import Retry, Skip
from flow.settings import load
from flow.targets.webhook import verify
from pipelines.webhook import Webhook, WebhookSettings
from tests.bodies import sample
from tests.messages import MemoryOrigin
from tests.pipelines.conftest import signature
from tests.stages.conftest import Line, quiet
from tests.targets.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio

SECRETS = "the-first-secret-of-two the-second-secret-of-two"
DOCUMENT = Path(__file__).parents[2] / "docs" / "webhook.md"


def settings(receiver: Receiver, **others: str) -> WebhookSettings:
    environment = {
        "WEBHOOK_URL": f"http://127.0.0.1:{receiver.port}/in",
        "WEBHOOK_SECRETS": SECRETS,
        "WEBHOOK_PORT": str(receiver.port),
        "WEBHOOK_ALLOW_PRIVATE": "yes",
    }
    return load(WebhookSettings, environment | others)


def message(body: Any, attempt: int = 1) -> Message[Any]:
    made = MemoryOrigin("acme.webhook").message(body, attempt=attempt)
    Codec(Webhook.message_types()).decode(made)
    return made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@asynccontextmanager
async def running(receiver: Receiver) -> AsyncIterator[Webhook]:
    pipeline = Webhook(settings(receiver))
    async with pipeline.lifespan():
        yield pipeline


async def test_the_body_arrives_byte_for_byte_also_with_fields_that_nobody_knows(receiver: Receiver) -> None:
    raw = json.dumps({**signature(7), "fieldOfTomorrow": "ź"}, indent=3, ensure_ascii=False).encode()
    async with running(receiver) as pipeline:
        for body in (raw, sample("action_old"), sample("action_encrypted"), sample("email_status")):
            await pipeline.handle_message(message(body))

    assert [post.body for post in receiver.posts][:2] == [raw, sample("action_old")]
    assert len({post.headers["flow-id"] for post in receiver.posts}) == 4
    for post in receiver.posts:
        assert all(verify(secret, post.headers, post.body) for secret in SECRETS.split())


async def test_the_id_is_the_same_at_every_attempt(receiver: Receiver) -> None:
    receiver.says(500)
    async with running(receiver) as pipeline:
        with pytest.raises(Retry, match=r"^the webhook answered 500$"):
            await pipeline.handle_message(message(signature(7)))
        receiver.says(204)
        await pipeline.handle_message(message(signature(7), attempt=2))
        await pipeline.handle_message(message(signature(8)))

    first, second, other = (post.headers["flow-id"] for post in receiver.posts)
    assert first == second != other


async def test_test_actions_are_not_sent(receiver: Receiver) -> None:
    async with running(receiver) as pipeline:
        with pytest.raises(Skip):
            await pipeline.handle_message(message(signatures.action(1, testing=True)))

    assert receiver.posts == []


async def test_messages_are_settled_by_what_the_receiver_answers(receiver: Receiver) -> None:
    """Delivered, parked and retried, each at its first attempt, by the engine as it runs."""
    statuses = {"1": 204, "2": 422, "3": 500}
    receiver.answer = lambda: Response(
        status_code=statuses[str(json.loads(receiver.posts[-1].body)["actionId"])]
    )
    ended = anyio.Event()

    class Watched(Webhook):
        async def handle_message(self, message: Message[Any]) -> None:
            try:
                await super().handle_message(message)
            finally:
                ended.set()

    line = Line(Watched(settings(receiver)), 100, rejectable=True)
    async with line.engine.pipeline.lifespan(), anyio.create_task_group() as tasks:
        tasks.start_soon(line.engine.run)
        await quiet()
        for number in (1, 2, 3):
            ended = anyio.Event()
            line.send(signature(number))
            await ended.wait()
            await quiet()
        tasks.cancel_scope.cancel()

    assert line.account == {"received": 3, "delivered": 1, "parked": 1, "retrying": 1}


async def test_a_wrong_setting_is_no_setting(receiver: Receiver) -> None:
    for others, sentence in (
        ({"WEBHOOK_ALLOW_PRIVATE": "no"}, "the URL of the webhook must begin with https://"),
        ({"WEBHOOK_SECRETS": "short"}, "each secret of the webhook must have at least 16 characters"),
    ):
        with pytest.raises(ConfigError) as refused:
            settings(receiver, **others)
        assert str(refused.value) == sentence


async def test_a_wrong_address_ends_it_before_anything_is_consumed(receiver: Receiver) -> None:
    pipeline = Webhook(settings(receiver, WEBHOOK_URL="https://169.254.169.254/"))

    with pytest.raises(ConfigError) as refused:
        await pipeline.lifespan().__aenter__()

    sentence = "the host of the webhook is at 169.254.169.254, and only public addresses may be called"
    assert str(refused.value) == sentence


def documented() -> Any:
    """Return the function of docs/webhook.md by which a receiver verifies."""
    [block] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    return names["genuine"]


async def test_what_the_document_tells_receivers_to_do_works(receiver: Receiver) -> None:
    genuine = documented()
    async with running(receiver) as pipeline:
        await pipeline.handle_message(message(signature(7)))

    [post] = receiver.posts
    headers = {name.title(): value for name, value in post.headers.items()}
    for secret in SECRETS.split():
        assert genuine(secret, headers, post.body)
        assert not genuine(secret, headers, post.body + b" ")
        assert not genuine(secret, {**headers, "Flow-Id": "another"}, post.body)
        assert not genuine(secret, late(headers), post.body)
    assert not genuine("a secret of somebody else", headers, post.body)


def late(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Flow-Timestamp": str(int(headers["Flow-Timestamp"]) - 301)}


def test_the_settings_are_those_of_the_document() -> None:
    named = set(re.findall(r"`WEBHOOK_(\w+)`", DOCUMENT.read_text())) - {"SECRETS_FILE"}

    assert named == {field.name.upper() for field in dataclasses.fields(WebhookSettings)}  # type: ignore[arg-type]  # made one by Settings


def test_the_pipeline_as_it_stands_gives_no_warnings() -> None:
    Webhook.check()

    assert Webhook.warnings() == []
