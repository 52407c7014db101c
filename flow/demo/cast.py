"""Who is in the story: what is published, in which order, and what shall become of it."""

from collections.abc import Iterator
from enum import Enum
from itertools import count
from typing import NamedTuple

from flow.demo.signatures import action, body, poison
from flow.outcome import Outcome


class Role(Enum):
    """What is special about a message."""

    SIGNER = "delivered as it comes"
    BUSY = "the CRM takes it at the third attempt only"
    TESTER = "somebody tried the form out"
    REFUSED = "the CRM will never take it"
    POISON = "nobody can read it"

    @property
    def outcome(self) -> Outcome:
        """What shall become of it in the end."""
        return ENDS.get(self, Outcome.DELIVERED)


ENDS = {Role.TESTER: Outcome.SKIPPED, Role.REFUSED: Outcome.PARKED, Role.POISON: Outcome.PARKED}


class Sent(NamedTuple):
    """A message of the feeder."""

    id: str
    """Its message id; of a signature also the id under which the CRM gets it."""
    number: int
    role: Role

    def body(self) -> bytes:
        """Make what is published."""
        if self.role is Role.POISON:
            return poison(self.number)
        return body(action(self.number, testing=self.role is Role.TESTER))


def role(number: int) -> Role:
    """Return the role of the signature with this *number*, from 1."""
    if number % 100 == 50:
        return Role.REFUSED
    if number % 50 == 25:
        return Role.TESTER
    return Role.BUSY if number % 40 == 10 else Role.SIGNER


def cast() -> Iterator[Sent]:
    """Yield signatures without end, and after each hundred of them a message that nobody can read."""
    for number in count(1):
        yield Sent(f"action-{number}", number, role(number))
        if number % 100 == 0:
            yield Sent(f"poison-{number // 100}", number // 100, Role.POISON)
