"""What goes wrong in the story, one after the other, and round after round."""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from flow.demo.crm_server import CrmServer
from flow.demo.feeder import Feeder
from flow.devbroker.server import DevBroker

Scene = tuple[float, Callable[[], Awaitable[None]]]
"""At which part of a round it begins, and what happens."""
FAILING = 12  # every so-manieth call the CRM answers with 500
SLOW = 0.02  # seconds that the CRM takes for a call


class Trouble:
    """Breaks connections and the CRM at set times of a round, and puts everything right at the end."""

    def __init__(
        self, broker: DevBroker, crm: CrmServer, feeder: Feeder, seconds: float, say: Callable[[str], None]
    ) -> None:
        """Strike in a round of so many *seconds*, and *say* so."""
        self._broker = broker
        self._crm = crm
        self._feeder = feeder
        self._seconds = seconds
        self._outage = seconds / 7
        self._say = say
        self.played = anyio.Event()
        """Set when the first round is over, or `end` was called."""
        self._over = anyio.Event()
        crm.faults.delay = SLOW
        crm.faults.failing = FAILING

    @property
    def scenes(self) -> Sequence[Scene]:
        """What happens in a round."""
        return (
            (0.12, self._drop),
            (0.30, self._crm_down),
            (0.62, self._close),
            (0.78, self._limit),
        )

    async def run(self) -> None:
        """Play round after round until `end`."""
        began = anyio.current_time()
        while not self._over.is_set():
            for part, scene in self.scenes:
                await self._wait(began + part * self._seconds - anyio.current_time())
                if self._over.is_set():
                    return
                await scene()
            self.played.set()
            began += self._seconds

    def end(self) -> None:
        """Let everything work from now on."""
        self._over.set()
        self.played.set()
        self._broker.faults.clear()
        self._crm.faults.failing = 0

    async def _wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._over.wait()

    async def _drop(self) -> None:
        self._say("the network drops the connection just before an acknowledgement arrives")
        self._broker.faults.drop_connection("before ack", 2)

    async def _crm_down(self) -> None:
        self._say(f"the CRM is down for {self._outage:.1f} s: flow waits, and no attempt is spent")
        self._crm.faults.outage = True
        await self._wait(self._outage)
        self._crm.faults.outage = False
        self._say("the CRM is up again")

    async def _close(self) -> None:
        # Between two bursts: who publishes again what lost its confirm may tell the CRM twice.
        async with self._feeder.burst:
            self._say("an operator closes every connection of the broker")
            self._broker.faults.close_connections(320, "closed by an operator")

    async def _limit(self) -> None:
        self._say("the CRM wants fewer calls: 429, Retry-After: 1")
        self._crm.faults.limited = "1"
        await self._wait(0.2)
        self._crm.faults.limited = None
