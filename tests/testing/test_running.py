"""`running`: a pipeline on a broker while a test looks on; what is wrong is told as it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from flow import Message, Pipeline
from flow.devbroker.server import DevBroker
from flow.errors import ConfigError, NotFound
from flow.plumbing import Plumbing
from flow.schema import ActionMessage
from flow.testing import action, running, until

pytestmark = pytest.mark.anyio


class Noting(Pipeline[ActionMessage]):
    queue = "acme.crm"

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[int] = []
        self.ended = False

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield
        self.ended = True

    async def handle_message(self, message: Message[ActionMessage]) -> None:
        await anyio.sleep(0.05)
        self.noted.append(message.body.action_id)


class NoQueue(Pipeline[ActionMessage]):
    def handle_message(self, message: Message[ActionMessage]) -> None:
        """Take everything."""


@pytest.fixture
async def plumbing(devbroker: DevBroker) -> AsyncIterator[Plumbing]:
    async with Plumbing(devbroker.url()) as plumbing:
        await plumbing.set_up_global_queues()
        await plumbing.set_up_organisations({"acme": ["crm"]})
        yield plumbing


async def test_it_is_drained_at_the_end(devbroker: DevBroker, plumbing: Plumbing) -> None:
    await plumbing.push("", "acme.crm", action(id=7))
    pipeline = Noting()

    async with running(pipeline, devbroker.url()) as runner:
        await until(lambda: runner.account.received)

    assert (pipeline.noted, pipeline.ended) == ([7], True)
    assert (runner.account.delivered, devbroker.lengths()["acme.crm"]) == (1, 0)


async def test_a_queue_that_is_missing_ends_the_block(devbroker: DevBroker) -> None:
    with anyio.fail_after(30), pytest.raises(NotFound, match=r"acme\.crm does not exist"):
        async with running(Noting(), devbroker.url()):
            await anyio.sleep_forever()


@pytest.mark.usefixtures("plumbing")
async def test_what_the_test_raises_is_raised_as_it_is(devbroker: DevBroker) -> None:
    with pytest.raises(AssertionError, match="of the test"):
        async with running(Noting(), devbroker.url()):
            raise AssertionError("of the test")


async def test_a_pipeline_that_cannot_run_is_refused(devbroker: DevBroker) -> None:
    with pytest.raises(ConfigError, match="needs a queue"):
        async with running(NoQueue(), devbroker.url()):
            pytest.fail("it runs")


async def test_it_waits_no_longer_than_it_may() -> None:
    with pytest.raises(TimeoutError, match=r"not so after 0\.05 s"):
        await until(lambda: False, within=0.05)
