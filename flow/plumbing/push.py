"""Publishes bodies one after another, each confirmed, and keeps account of those that were not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import anyio
import msgspec

from flow.errors import BrokerError, DecodeError, FlowError, PublishFailed

WINDOW = 100
"""How many bodies may be on their way to the broker at the same time."""
HOPELESS = 100
"""After so many failures in a row the rest is not tried: it would fail alike."""

Publish = Callable[[bytes], Awaitable[None]]
Check = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A body that the broker is not known to have taken over."""

    number: int
    """Its place in the input, from 1."""
    body: bytes
    error: FlowError | None
    """Why; None when it was not tried, or no answer was waited for."""


class Push:
    """Publishes a stream of bodies through a window; a lost broker or `stop` ends it early."""

    def __init__(self, publish: Publish, check: Check, failed: Callable[[Unconfirmed], None]) -> None:
        """Take *publish*, which returns once the broker has confirmed a body.

        *check* raises `DecodeError` for a body that shall not be published, and returns False for one that
        is left out. *failed* is called at once for each body with a known error.
        """
        self._publish = publish
        self._check = check
        self._failed = failed
        self._reading = anyio.CancelScope()
        self._under_way: dict[int, bytes] = {}
        self._failures_in_a_row = 0
        self.read = 0
        self.pushed = 0
        """How many bodies were handed to *publish*."""
        self.confirmed = 0
        self.failed = 0
        self.stopped = False
        """Whether it ended before the end of the input."""
        self.fault: FlowError | None = None
        """What made it end early, unless `stop` was called."""

    async def run(self, bodies: AsyncIterator[bytes]) -> None:
        """Publish all *bodies*, and return when each is confirmed or known to have failed."""
        window = anyio.Semaphore(WINDOW, fast_acquire=True)
        async with anyio.create_task_group() as group:
            with self._reading:
                async for body in bodies:
                    self.read += 1
                    self._under_way[self.read] = body
                    if self._checked(self.read, body):
                        await window.acquire()
                        group.start_soon(self._push, self.read, body, window)

    def stop(self) -> None:
        """Read no more; what is under way is still waited for."""
        self.stopped = True
        self._reading.cancel()

    def unconfirmed(self) -> list[Unconfirmed]:
        """Return the bodies that were read and neither confirmed nor told as failed, in their order."""
        return [Unconfirmed(number, body, None) for number, body in sorted(self._under_way.items())]

    def _checked(self, number: int, body: bytes) -> bool:
        try:
            wanted = self._check(body)
        except DecodeError as error:
            self._fail(Unconfirmed(number, body, error))
            return False
        if not wanted:
            del self._under_way[number]
        return wanted

    async def _push(self, number: int, body: bytes, window: anyio.Semaphore) -> None:
        self.pushed += 1
        try:
            await self._publish(body)
        except PublishFailed as error:
            self._fail(Unconfirmed(number, body, error))
        except BrokerError as error:
            self._end(error)
        else:
            self.confirmed += 1
            self._failures_in_a_row = 0
            del self._under_way[number]
        finally:
            window.release()

    def _fail(self, unconfirmed: Unconfirmed) -> None:
        self.failed += 1
        self._failures_in_a_row += isinstance(unconfirmed.error, PublishFailed)
        del self._under_way[unconfirmed.number]
        self._failed(unconfirmed)
        if self._failures_in_a_row >= HOPELESS:
            self._end(PublishFailed(f"{HOPELESS} failed in a row, so that the rest was not tried"))

    def _end(self, error: FlowError) -> None:
        self.fault = self.fault or error
        self.stop()


def check_document(body: bytes) -> bool:
    """Check that *body* is one JSON document in UTF-8.

    Raises:
        DecodeError: it is not; nothing of it is quoted.
    """
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (ValueError, RecursionError):  # UnicodeDecodeError and msgspec's errors are ValueErrors
        raise DecodeError("it is not valid JSON in UTF-8; --raw would push it as it is") from None
    return True


def check_line(body: bytes) -> bool:
    """Check one line as `check_document` does, and leave out a blank one."""
    return not body.isspace() and body != b"" and check_document(body)


def check_nothing(_: bytes) -> bool:
    """Take every body as it is."""
    return True
