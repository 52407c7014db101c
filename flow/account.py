"""The account of a run: what became of every delivery, down to the last one."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Account:
    """How many deliveries of one queue were received, and what became of them."""

    received: int = 0
    delivered: int = 0
    skipped: int = 0
    retrying: int = 0
    parked: int = 0
    returned: int = 0
    """Given back to the queue unfinished: at a drain, or as its target is down."""
    stale: int = 0
    """Lost with their session; the broker delivers them again, and they are counted as received again."""

    @property
    def open(self) -> int:
        """How many deliveries nothing has become of yet; 0 after a drain."""
        return self.received - (
            self.delivered + self.skipped + self.retrying + self.parked + self.returned + self.stale
        )

    def add(self, other: "Account") -> None:
        """Add the numbers of *other*."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def __str__(self) -> str:
        """Say it in one line."""
        parts = " + ".join(f"{getattr(self, one.name)} {one.name}" for one in fields(self)[1:])
        left = f" + {self.open} unaccounted for" if self.open else ""
        return f"received {self.received} = {parts}{left}"
