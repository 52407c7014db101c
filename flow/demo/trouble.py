"""What goes wrong in the story, one after the other, and round after round."""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from flow.demo.cast import Role, Signature, number_of, role
from flow.demo.crm_server import CrmServer
from flow.demo.mail_sink import MailSink
from flow.demo.sqs_server import SqsServer
from flow.demo.turnstile import Turnstile
from flow.devbroker.server import DevBroker

Scene = tuple[float, Callable[[], Awaitable[None]]]
"""At which part of a round it begins, and what happens."""
FAILING = 12  # every so-manieth call the CRM, or one entry of SQS, fails
SLOW = 0.02  # seconds that the CRM takes for a call
BUSY = 2  # attempts at which the CRM does not take a busy one
NO_SUCH_ADDRESS = "550 5.1.1 no such address"
GREYLISTED = "451 4.7.1 come again"


class Trouble:
    """Breaks connections and targets at set times of a round, and puts everything right at the end."""

    def __init__(
        self,
        broker: DevBroker,
        turnstile: Turnstile,
        crm: CrmServer,
        sink: MailSink,
        sqs: SqsServer,
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Strike in a round of so many *seconds*, and *say* so."""
        self._broker = broker
        self._turnstile = turnstile
        self._crm = crm
        self._sink = sink
        self._sqs = sqs
        self._seconds = seconds
        self._outage = seconds / 7
        self._say = say
        self.played = anyio.Event()
        """Set when the first round is over, or `end` was called."""
        self._over = anyio.Event()
        self._greylisted: set[str] = set()
        crm.faults.delay = SLOW
        crm.faults.failing = sqs.failing = FAILING
        sink.recipient = self._refusal

    @property
    def scenes(self) -> Sequence[Scene]:
        """What happens in a round."""
        return (
            (0.12, self._drop),
            (0.28, self._crm_down),
            (0.52, self._mail_down),
            (0.66, self._close),
            (0.74, self._throttle),
            (0.80, self._limit),
        )

    def meet(self, action_id: int, signature: Signature) -> None:
        """Let the CRM treat an action as the role of its signature has it."""
        name, faults = f"action-{action_id}", self._crm.faults
        if signature.role is Role.REFUSED:
            faults.invalid[name] = "no_such_country"
        elif signature.role is Role.BUSY:
            faults.busy[name] = BUSY

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
        self._crm.faults.failing = self._sqs.failing = 0

    async def _wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._over.wait()

    def _refusal(self, address: str) -> str | None:
        part = role(number_of(address)) if number_of(address) else Role.SIGNER
        if part is Role.BOUNCING:
            return NO_SUCH_ADDRESS
        if part is Role.GREYLISTED and address not in self._greylisted:
            self._greylisted.add(address)
            return GREYLISTED
        return None

    async def _drop(self) -> None:
        self._say("the network drops the connection just before an acknowledgement arrives")
        self._broker.faults.drop_connection("before ack", 2)

    async def _crm_down(self) -> None:
        self._say(f"the CRM is down for {self._outage:.1f} s: flow waits, and no attempt is spent")
        self._crm.faults.outage = True
        await self._wait(self._outage)
        self._crm.faults.outage = False
        self._say("the CRM is up again")

    async def _mail_down(self) -> None:
        self._say("the mail server takes nothing for a moment: 421")
        self._sink.down = True
        await self._wait(self._outage / 3)
        self._sink.down = False

    async def _close(self) -> None:
        # While nothing is on its way to the broker: what has to be published again may be told twice.
        async with self._turnstile.closed():
            self._say("an operator closes every connection of the broker")
            self._broker.faults.close_connections(320, "closed by an operator")

    async def _throttle(self) -> None:
        self._say("SQS throttles")
        self._sqs.throttled = True
        await self._wait(self._outage / 4)
        self._sqs.throttled = False

    async def _limit(self) -> None:
        self._say("the CRM wants fewer calls: 429, Retry-After: 1")
        self._crm.faults.limited = "1"
        await self._wait(0.2)
        self._crm.faults.limited = None
