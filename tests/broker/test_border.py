"""What waits for the client library is bounded, and its cancellations are not taken for ours."""

import asyncio

import anyio
import pytest

from flow.broker import faults
from flow.broker.border import Expired, bounded
from flow.errors import BrokerError, ConnectionLost
from tests.broker.queues import PATIENCE

pytestmark = pytest.mark.anyio


def fault(error: BaseException) -> BrokerError:
    return ConnectionLost(type(error).__name__)


class Peer:
    """An operation that ends when it is dropped, and not before."""

    def __init__(self) -> None:
        self.dropped = asyncio.Event()
        self.ended = False

    async def answer(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await self.dropped.wait()  # as a TLS connection waits for its peer's farewell
            self.ended = True


async def test_answer_is_returned() -> None:
    async def answer() -> int:
        return 7

    assert await bounded(answer(), seconds=1, give_up=lambda: None, fault=fault) == 7


async def test_operation_without_an_answer_is_given_up() -> None:
    peer = Peer()

    with pytest.raises(ConnectionLost, match="Expired"), anyio.fail_after(PATIENCE):
        await bounded(peer.answer(), seconds=0.05, give_up=peer.dropped.set, fault=fault)

    assert peer.ended


async def test_operation_of_a_cancelled_caller_is_given_up() -> None:
    peer = Peer()

    with anyio.fail_after(PATIENCE), anyio.move_on_after(0.05) as scope:
        await bounded(peer.answer(), seconds=3600, give_up=peer.dropped.set, fault=fault)

    assert scope.cancelled_caught
    assert peer.ended


async def test_cancellation_by_the_library_is_an_error() -> None:
    """A task group would take it for its own, and end without a word."""

    async def lose() -> None:
        raise asyncio.CancelledError

    with pytest.RaisesGroup(ConnectionLost):
        async with anyio.create_task_group():
            await bounded(lose(), seconds=1, give_up=lambda: None, fault=faults.lost)


async def test_error_of_the_library_is_translated_and_kept_as_the_cause() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(ConnectionLost, match="KeyError") as caught:
        await bounded(fail(), seconds=1, give_up=lambda: None, fault=fault)

    assert isinstance(caught.value.__cause__, KeyError)


def test_expired_operation_says_after_how_long() -> None:
    assert str(faults.lost(Expired(2.5))) == "The broker did not answer within 2.5 s"
