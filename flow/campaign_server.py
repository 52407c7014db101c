"""Names of what a campaign server declares for each of its organisations; pure.

flow only consumes it. Per organisation N: four topic exchanges, a fanout `org.N.fail` in front of the queue
`org.N.fail`, a direct `org.N.retry` behind it, and the queues below.
"""

from dataclasses import dataclass

from flow.topology import OF_THE_SERVER

PURPOSES = {
    "wrk.{}.email.supporter": "mail to supporters",
    "wrk.{}.sqs": "what goes to SQS",
    "wrk.{}.webhook": "what goes to a webhook",
    "cus.{}.confirm.supporter": "supporters that the organisation confirms itself",
    "cus.{}.confirm.action": "actions that the organisation moderates",
    "cus.{}.deliver": "actions for the CRM of the organisation",
}
"""The queues of an organisation, and what is in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerQueue:
    """One queue of a campaign server."""

    name: str
    organisation: str
    """The server's number for it."""
    purpose: str | None
    """None when no queue of this name is known."""

    @property
    def source(self) -> str | None:
        """The exchange that feeds it, where its name tells: those for external consumers."""
        if self.purpose is None or not self.name.startswith("cus."):
            return None
        return self.name.replace("cus.", "org.", 1)

    @property
    def loop(self) -> tuple[tuple[str, str], ...]:
        """The parts of its retry loop, in the order in which a rejected message passes them."""
        fail, retry = f"org.{self.organisation}.fail", f"org.{self.organisation}.retry"
        return ("exchange", fail), ("queue", fail), ("exchange", retry)


def server_queue(name: str) -> ServerQueue | None:
    """Return what the *name* of a queue tells if it is one of a campaign server; else None."""
    found = OF_THE_SERVER.fullmatch(name)
    if found is None:
        return None
    organisation = found["organisation"]
    purposes = {pattern.format(organisation): purpose for pattern, purpose in PURPOSES.items()}
    return ServerQueue(name=name, organisation=organisation, purpose=purposes.get(name))
