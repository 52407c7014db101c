"""A batch as `handle_batch` sees it, with its marks."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import Enum
from typing import Any, Generic, overload

from typing_extensions import TypeVar

from flow.errors import WrongMark
from flow.message import Message
from flow.outcome import Reject, Retry, Skip, Verdict

B = TypeVar("B", default=Any)


class Trigger(Enum):
    """Why a batch was closed."""

    SIZE = "size"
    WEIGHT = "weight"
    TIMEOUT = "timeout"
    FLUSH = "flush"
    STARVED = "starved"


class Batch(Sequence[Message[B]], Generic[B]):
    """Messages of one key, delivered together.

    Whatever is not marked when `handle_batch` returns is delivered; what it raises decides all that is not
    marked yet.
    """

    __slots__ = (
        "_members",
        "_messages",
        "batcher",
        "claim",
        "key",
        "marks",
        "partition",
        "queue",
        "sent",
        "trigger",
    )

    def __init__(
        self,
        messages: list[Message[B]],
        key: Hashable,
        batcher: str,
        trigger: Trigger,
        *,
        queue: str = "",
        partition: int | None = None,
    ) -> None:
        """Take over *messages*: the list is not copied."""
        self._messages = messages
        self.key = key
        self.batcher = batcher
        self.trigger = trigger
        self.queue = queue
        """The queue that all of it comes from."""
        self.partition = partition
        """Which partition all of it belongs to, from 0; None without `partition_key`."""
        self.marks: dict[Message[B], Verdict] = {}
        self.claim: Callable[[Batch[B], Message[B]], AbstractAsyncContextManager[None]] | None = None
        self.sent: set[Message[B]] = set()  # whose effect happened, whatever is raised after it
        self._members: set[Message[B]] | None = None  # made at the first mark

    @property
    def messages(self) -> list[Message[B]]:
        """The messages in order of arrival."""
        return self._messages

    @property
    def bodies(self) -> list[B]:
        """The bodies in order of arrival."""
        return [message.body for message in self._messages]

    def part(self, messages: list[Message[B]]) -> "Batch[B]":
        """Return a batch like this one with only *messages* of it, none of them marked."""
        return Batch(
            messages, self.key, self.batcher, self.trigger, queue=self.queue, partition=self.partition
        )

    def retry(self, message: Message[B], reason: str, after: float | None = None) -> None:
        """Try *message* again later, no sooner than *after* seconds (None: the retry loop's delay)."""
        self._mark(message, Retry(reason, after))

    def reject(self, message: Message[B], reason: str) -> None:
        """Park *message* now: it will never be valid."""
        self._mark(message, Reject(reason))

    def skip(self, message: Message[B], reason: str) -> None:
        """Acknowledge *message* as skipped: there is nothing to deliver."""
        self._mark(message, Skip(reason))

    def sending(self, message: Message[B]) -> AbstractAsyncContextManager[None]:
        """Surround the effect for *message*, in a pipeline with a `claim`: `async with batch.sending(…):`.

        Before the block begins it is committed that the effect is under way. A block that ends normally, with
        *message* unmarked, has delivered it, whatever `handle_batch` raises later. One that raises `Retry`,
        `Reject`, `Skip` or `Unavailable`, or marks *message*, says that the effect did not happen: it may be
        tried again. After any other error, and after a crash within the block, it is not known, and
        `Claim.unknown` decides. Without a claim this does nothing.
        """
        self._check(message)
        return nullcontext() if self.claim is None else self.claim(self, message)

    def _mark(self, message: Message[B], verdict: Verdict) -> None:
        if message in self.marks:
            raise WrongMark(f"{message!r} is marked already ({type(self.marks[message]).__name__})")
        if message in self.sent:
            raise WrongMark(f"{message!r} is delivered already: its block of batch.sending has ended")
        self._check(message)
        self.marks[message] = verdict

    def _check(self, message: Message[B]) -> None:
        if self._members is None:
            self._members = set(self._messages)
        if message not in self._members:
            raise WrongMark(f"{message!r} is not in this batch")

    @overload
    def __getitem__(self, index: int) -> Message[B]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message[B]]: ...
    def __getitem__(self, index: int | slice) -> Message[B] | Sequence[Message[B]]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message[B]]:
        return iter(self._messages)

    def __repr__(self) -> str:
        """Show the shape only: bodies never appear in logs."""
        return f"<Batch of {len(self)} for {self.batcher}, {self.trigger.value}>"
