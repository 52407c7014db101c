"""Submits the cast in waves, as a campaign goes, and lets some other sender publish what nobody can read."""

import math
from collections.abc import Callable
from itertools import islice

import anyio

from flow.demo.cast import EVERY, Poison, Signature, cast
from flow.demo.organisations import PARTIES, campaign
from flow.demo.signatures import PAGES
from flow.errors import ConnectionLost, DatabaseDown, DecodeError, PublishFailed
from flow.plumbing.outbox import Publishing
from flow.plumbing.submitting import Submitted, Submitting

TICK = 0.1  # seconds between two bursts, unless it is late
BURST = 50  # at most, so that nobody waits long for the end of one
WAVES = 4  # in one round
HEIGHT = 0.8  # of a wave; 1: nothing is submitted between two
PAUSE = 0.2  # seconds until what was lost is tried again
TRIES = 50
KEY = "acme.system.action"  # of what nobody can read


class Feeder:
    """Submits so many signatures in a round of so many seconds, and round after round when asked to."""

    def __init__(
        self,
        submitting: Submitting,
        publisher: Publishing,
        signatures: int,
        seconds: float,
        *,
        forever: bool,
        meet: Callable[[int, Signature], None],
    ) -> None:
        """Submit by *submitting*; *meet* is told the id and the signature of each action at once."""
        self.signatures: dict[int, Signature] = {}
        """What is in the records, by the id of the action."""
        self.poison: list[Poison] = []
        """What the broker has taken over."""
        self._submitting = submitting
        self._publisher = publisher
        self._signatures = signatures
        self._seconds = seconds
        self._forever = forever
        self._meet = meet
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Submit no more after the present burst."""
        self._stopping.set()

    async def prepare(self) -> None:
        """Define organisations, campaign and action pages.

        Raises:
            FlowError: that could not be done.
        """
        locales = {page.number: page.locale for page in PAGES}
        organisations = [one for party in PARTIES for one in party.definitions(locales)[:1]]
        pages = [one for party in PARTIES for one in party.definitions(locales)[1:]]
        for definition in (*organisations, campaign(), *pages):
            await self._submitting.define(definition)

    async def run(self) -> None:
        """Submit until the round is over, or without end."""
        everybody = cast()
        began = anyio.current_time()
        done = 0
        while not self._stopping.is_set():
            due = self._due(anyio.current_time() - began)
            burst = list(islice(everybody, min(due - done, BURST)))
            await self._submit([one for one in burst if isinstance(one, Signature)])
            for one in burst:
                if isinstance(one, Poison):
                    await self._publish(one)
            done += len(burst)
            if not self._forever and done == self._whole(self._signatures):
                return
            with anyio.move_on_after(TICK if done == due else 0.0):
                await self._stopping.wait()

    def _due(self, elapsed: float) -> int:
        """Return how much shall be submitted after so many seconds."""
        rounds = elapsed / self._seconds
        if not self._forever:
            rounds = min(rounds, 1.0)
        waves = 2 * math.pi * WAVES
        return self._whole(int(self._signatures * (rounds - HEIGHT * math.sin(waves * rounds) / waves)))

    def _whole(self, signatures: int) -> int:
        """Return how much so many *signatures* are, with the poison between them."""
        return signatures + signatures // EVERY

    async def _submit(self, burst: list[Signature]) -> None:
        """Submit in one transaction; the same submission again is the same action."""
        if not burst:
            return
        for left in reversed(range(TRIES)):
            try:
                results = await self._submitting.submit([one.action for one in burst])
                break
            except DatabaseDown:
                if not left:
                    raise
                await anyio.sleep(PAUSE)
        for one, result in zip(burst, results, strict=True):
            if isinstance(result, DecodeError):
                raise result
            self._note(one, result)

    def _note(self, signature: Signature, result: Submitted) -> None:
        self.signatures[result.action_id] = signature
        self._meet(result.action_id, signature)

    async def _publish(self, poison: Poison) -> None:
        for left in reversed(range(TRIES)):
            try:
                await self._publisher.publish("deliver", KEY, poison.body, message_id=poison.id)
                break
            except (ConnectionLost, PublishFailed):
                if not left:
                    raise
                await anyio.sleep(PAUSE)
        self.poison.append(poison)
