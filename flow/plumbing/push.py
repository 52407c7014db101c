"""Publishes messages one after another, each confirmed, and keeps account of those that were not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import uuid4

import anyio
import msgspec

from flow.errors import (
    BrokerError,
    ConnectionLost,
    DecodeError,
    FlowError,
    PublishFailed,
    PublishTimedOut,
    Unanswered,
)

WINDOW = 200
"""How many messages may be on their way to the broker at the same time."""
HOPELESS = 100
"""After so many failures in a row the rest is not tried: it would fail alike."""
PAUSE = 0.25  # seconds between two tries to send what was not sent over a broken connection

M = TypeVar("M")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to be pushed; it keeps its id when it is pushed again."""

    exchange: str
    routing_key: str
    body: bytes = field(repr=False)
    message_id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Unconfirmed(Generic[M]):
    """A message that the broker is not known to have taken over."""

    number: int
    """Its place in the input, from 1."""
    message: M = field(repr=False)
    error: FlowError | None
    """Why; None when it was not tried, or no answer was waited for."""
    may_have_arrived: bool = False
    """Whether it was sent and the answer is missing: pushed again, it may be there twice, with one id."""


class Push(Generic[M]):
    """Publishes a stream of messages through a window; a lost broker or `stop` ends it early."""

    def __init__(
        self,
        publish: Callable[[M], Awaitable[None]],
        check: Callable[[M], bool],
        failed: Callable[[Unconfirmed[M]], None],
        *,
        patience: float = 0.0,
    ) -> None:
        """Take *publish*, which returns once the broker has confirmed a message.

        *check* raises `DecodeError` for a message that shall not be published, and returns False for one that
        is left out. *failed* is called at once for each message with a known error. With *patience* a broken
        connection does not end it, once something was confirmed: what was under way is told as failed, and
        what was not sent is tried again for so many seconds.
        """
        self._publish = publish
        self._check = check
        self._failed = failed
        self._patience = patience
        self._reading = anyio.CancelScope()
        self._under_way: dict[int, M] = {}
        self._sent: set[int] = set()  # of those, the ones that were handed to *publish*
        self._failures_in_a_row = 0
        self._lost_at: float | None = None
        self.read = 0
        self.pushed = 0
        """How many messages were handed to *publish* and not known to have stayed here."""
        self.confirmed = 0
        self.failed = 0
        self.unanswered = 0
        """How many of the failed ones may have arrived."""
        self.stopped = False
        """Whether it ended before the end of the input."""
        self.fault: FlowError | None = None
        """What made it end early, unless `stop` was called."""

    async def run(self, messages: AsyncIterator[M]) -> None:
        """Publish all *messages*, and return when each is confirmed or known to have failed."""
        window = anyio.Semaphore(WINDOW, fast_acquire=True)
        async with anyio.create_task_group() as group:
            with self._reading:
                try:
                    async for message in messages:
                        self.read += 1
                        self._under_way[self.read] = message
                        if self._checked(self.read, message):
                            await window.acquire()
                            group.start_soon(self._push, self.read, message, window)
                except DecodeError as error:  # the input ends here
                    self._end(error)

    def stop(self) -> None:
        """Read no more; what is under way is still waited for."""
        self.stopped = True
        self._reading.cancel()

    def unconfirmed(self) -> list[Unconfirmed[M]]:
        """Return the messages that were read and neither confirmed nor told as failed, in their order."""
        return [
            Unconfirmed(number, message, None, number in self._sent)
            for number, message in sorted(self._under_way.items())
        ]

    def _checked(self, number: int, message: M) -> bool:
        try:
            wanted = self._check(message)
        except DecodeError as error:
            self._fail(Unconfirmed(number, message, error))
            return False
        if not wanted:
            del self._under_way[number]
        return wanted

    async def _push(self, number: int, message: M, window: anyio.Semaphore) -> None:
        try:
            while not await self._sent_and_judged(number, message):
                await anyio.sleep(PAUSE)
                if self.stopped:
                    return
        finally:
            window.release()

    async def _sent_and_judged(self, number: int, message: M) -> bool:
        """Publish once; return False when it was not sent and may be tried again."""
        self._sent.add(number)
        self.pushed += 1
        try:
            await self._publish(message)
        except PublishFailed as error:
            self._fail(Unconfirmed(number, message, error, isinstance(error, PublishTimedOut)))
        except Unanswered as error:
            if not self._patience:
                self._end(error)
                return True
            self._fail(Unconfirmed(number, message, error, may_have_arrived=True))
        except ConnectionLost as error:
            self._not_sent(number)
            return not self._waits_out(error)
        except BrokerError as error:
            self._not_sent(number)
            self._end(error)
        else:
            self.confirmed += 1
            self._failures_in_a_row = 0
            self._lost_at = None
            self._forget(number)
        return True

    def _not_sent(self, number: int) -> None:
        self._sent.discard(number)
        self.pushed -= 1

    def _waits_out(self, error: ConnectionLost) -> bool:
        """Whether a broken connection may come back in time; else it ends."""
        now = anyio.current_time()
        if self._lost_at is None:
            self._lost_at = now
        waits = self.confirmed > 0 and now - self._lost_at < self._patience
        if not waits:
            self._end(error)
        return waits

    def _fail(self, unconfirmed: Unconfirmed[M]) -> None:
        self.failed += 1
        self.unanswered += unconfirmed.may_have_arrived
        self._failures_in_a_row += isinstance(unconfirmed.error, PublishFailed)
        self._forget(unconfirmed.number)
        self._failed(unconfirmed)
        if self._failures_in_a_row >= HOPELESS:
            self._end(PublishFailed(f"{HOPELESS} failed in a row, so that the rest was not tried"))

    def _forget(self, number: int) -> None:
        del self._under_way[number]
        self._sent.discard(number)

    def _end(self, error: FlowError) -> None:
        self.fault = self.fault or error
        self.stop()


def check_document(body: bytes) -> bool:
    """Check that *body* is one JSON document in UTF-8.

    Raises:
        DecodeError: it is not; nothing of it is quoted.
    """
    if not is_json(body):
        ways = "--lines pushes each line of it, --raw all of it as it is"
        raise DecodeError(f"it is not one JSON document in UTF-8: {ways}")
    return True


def check_line(body: bytes) -> bool:
    """Check one line as `check_document` does, and leave out a blank one."""
    if not body or body.isspace():
        return False
    if not is_json(body):
        raise DecodeError("it is not valid JSON in UTF-8; --raw would push it as it is")
    return True


def is_json(body: bytes) -> bool:
    """Tell whether *body* is one JSON document in UTF-8."""
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (ValueError, RecursionError):  # UnicodeDecodeError and msgspec's errors are ValueErrors
        return False
    return True


def check_nothing(_: bytes) -> bool:
    """Take every body as it is."""
    return True
