"""Sweeps up what a crash or an import left behind, and publishes what waits, once or for ever."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from flow.errors import DatabaseDown
from flow.plumbing.outbox import Account, Outbox
from flow.plumbing.processing import Processing
from flow.records import outbox
from flow.records.database import Database

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did, and what it had to leave."""

    settled: int
    """Actions that were not as they stay, and now are."""
    account: Account
    waiting: int
    """Messages that are still in the outbox."""
    refused: int
    """How many of these the broker would not take."""

    @property
    def sentence(self) -> str:
        """Say it in one sentence."""
        parts = [f"published {counted(self.account.published, 'message')}"]
        if self.settled:
            parts.append(f"settled {counted(self.settled, 'action')}")
        if self.waiting:
            kept = f", {self.refused} of them refused" if self.refused else ""
            parts.append(f"{counted(self.waiting, 'message')} wait{'s' * (self.waiting == 1)}{kept}")
        return "; ".join(parts)


class Sweeper:
    """Settles actions and publishes the outbox of a database; safe to run beside others of its kind."""

    def __init__(self, database: Database, box: Outbox, *, say: Say = lambda _: None) -> None:
        """Work on *database*, publish through *box*, and *say* what somebody has to look at, each once."""
        self._database = database
        self._box = box
        self._processing = Processing(database)
        self._say = say
        self._said: set[str] = set()
        self._woken = anyio.Event()
        self.down: str | None = "the database was not reached yet"
        """While it runs: why the database was not to be had when it was last asked, or None."""
        self.published = 0
        """How many messages it has published."""
        self.waiting = 0
        """How many messages were left in the outbox at the last look."""
        self.refused = 0
        """How many of these the broker would not take."""

    async def sweep(self, *, refused_too: bool = False) -> Swept:
        """Do what there is to do now; with *refused_too* also try at once what the broker would not take.

        Raises:
            DatabaseError: the records could not be read or written.
        """
        settled = await self._settle()
        return await self._publish(settled, refused_too=refused_too)

    async def _settle(self) -> int:
        settled, after = 0, 0
        while True:
            changed, more = await self._processing.settle(after)
            settled += changed
            if more is None:
                return settled
            after = more

    async def _publish(self, settled: int = 0, *, refused_too: bool = False) -> Swept:
        account = await self._box.publish(refused_too=refused_too)
        reasons = await outbox.refusals(self._database)
        self.published += account.published
        self.waiting, self.refused = await outbox.waiting(self._database)
        complaints = {
            reason: f"{counted(number, 'message')} not taken by the broker, kept to be tried again: {reason}"
            for reason, number in reasons.items()
        }
        if account.fault is not None:
            complaints["fault"] = str(account.fault)
        self._complain(complaints)
        return Swept(settled, account, self.waiting, self.refused)

    async def run(self, every: float) -> None:
        """Sweep again and again until cancelled, *every* so many seconds; when woken, publish in between.

        What is down is waited for, also before the first sweep.

        Raises:
            DatabaseError: the database cannot be used, and waiting would not help.
            ConfigError: it has not the tables of this version.
        """
        first, due = True, 0.0
        while True:
            now = anyio.current_time()
            try:
                if self.down is not None:
                    await self._database.ready()
                    self.down = None
                if now >= due:
                    await self.sweep(refused_too=first)
                    first, due = False, now + every
                else:  # looking for actions to settle takes the longer the more people have yet to confirm
                    await self._publish()
            except DatabaseDown as error:
                self.down = str(error)
                self._complain({"database": self.down})
                due = now + every
            with anyio.move_on_after(max(0.0, due - anyio.current_time())):
                await self._woken.wait()
            self._woken = anyio.Event()

    def wake(self) -> None:
        """Publish now: something was put into the outbox."""
        self._woken.set()

    def _complain(self, complaints: dict[str, str]) -> None:
        """Say what is new; what is over may be said again when it comes back."""
        for key, sentence in complaints.items():
            if key not in self._said:
                self._say(sentence)
        self._said = set(complaints)


def counted(number: int, what: str) -> str:
    """Return *number* with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"
