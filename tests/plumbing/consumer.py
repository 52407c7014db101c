"""A consumer for tests."""

from typing import Any

import anyio

from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.message import Message


class Consumer:
    """One consumer of one queue, with what it received."""

    def __init__(self, url: BrokerUrl, queue: str) -> None:
        self._url = url
        self._queue = queue
        self._messages: list[Message[Any]] = []
        self._bell = anyio.Event()

    async def __aenter__(self) -> "Consumer":
        self._session = await Session.open(self._url, {self._queue: 10}, self._receive)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def _receive(self, messages: list[Message[Any]]) -> None:
        self._messages += messages
        self._bell.set()

    async def next(self) -> Message[Any]:
        with anyio.fail_after(30):
            while not self._messages:
                self._bell = anyio.Event()
                await self._bell.wait()
        return self._messages.pop(0)
