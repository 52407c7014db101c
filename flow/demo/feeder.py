"""Publishes the cast in waves, as a campaign goes: confirmed, and again when the confirm was lost."""

import math
from collections.abc import Callable
from itertools import islice

import anyio

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.demo.cast import Sent, cast
from flow.errors import ConnectionLost, PublishFailed

TICK = 0.05  # seconds between two bursts, unless it is late
BURST = 100  # messages at most, so that nobody waits long for the end of one
WAVES = 4  # in one round
HEIGHT = 0.8  # of a wave; 1: nothing is published between two
PAUSE = 0.2  # seconds until a lost publication is made again
TRIES = 50


class Feeder:
    """Publishes so many signatures in a round of so many seconds, and round after round when asked to."""

    def __init__(
        self,
        url: BrokerUrl,
        key: str,
        signatures: int,
        seconds: float,
        *,
        forever: bool,
        meet: Callable[[Sent], None],
    ) -> None:
        """Publish to the exchange deliver with the routing *key*; *meet* is told of each message before."""
        self.sent: dict[str, Sent] = {}
        """What the broker has taken over, by message id."""
        self.again: set[str] = set()
        """Message ids that were published again, as nobody could know whether they had arrived."""
        self.burst = anyio.Lock()
        """Held while something is on its way to the broker and not confirmed."""
        self._publisher = Publisher(url, name="flow demo feeder")
        self._key = key
        self._signatures = signatures
        self._seconds = seconds
        self._forever = forever
        self._meet = meet
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Publish no more after the present burst."""
        self._stopping.set()

    async def run(self) -> None:
        """Publish until the round is over, or without end; then close the connection."""
        messages = cast()
        began = anyio.current_time()
        done = 0
        try:
            while not self._stopping.is_set():
                due = self._due(anyio.current_time() - began)
                number = min(due - done, BURST)
                async with self.burst, anyio.create_task_group() as group:
                    for sent in islice(messages, number):
                        group.start_soon(self._publish, sent)
                done += number
                if not self._forever and done == self._whole(self._signatures):
                    return
                with anyio.move_on_after(TICK if done == due else 0.0):
                    await self._stopping.wait()
        finally:
            await self._publisher.close()

    def _due(self, elapsed: float) -> int:
        """Return how many messages shall be published after so many seconds."""
        rounds = elapsed / self._seconds
        if not self._forever:
            rounds = min(rounds, 1.0)
        waves = 2 * math.pi * WAVES
        return self._whole(int(self._signatures * (rounds - HEIGHT * math.sin(waves * rounds) / waves)))

    def _whole(self, signatures: int) -> int:
        """Return how many messages so many *signatures* are, with the poison between them."""
        return signatures + signatures // 100

    async def _publish(self, sent: Sent) -> None:
        self._meet(sent)
        body = sent.body()
        for left in reversed(range(TRIES)):
            try:
                await self._publisher.publish("deliver", self._key, body, message_id=sent.id)
                break
            except (ConnectionLost, PublishFailed):
                if not left:
                    raise
                self.again.add(sent.id)
                await anyio.sleep(PAUSE)
        self.sent[sent.id] = sent
