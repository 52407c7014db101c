"""Who may log in, and what they may do in a virtual host."""

import re
from dataclasses import dataclass, field

from flow.devbroker.errors import ChannelRefusal


@dataclass
class Account:
    """A user: its password and, by virtual host, three regular expressions over names.

    They stand for configure, write and read, as with rabbitmqctl set_permissions.
    """

    name: str
    password: str = field(repr=False)
    permissions: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    everywhere: bool = False

    def check(self, what: str, kind: str, name: str, vhost: str) -> None:
        """Check that it may *what*: configure, write or read the *kind* (queue or exchange) called *name*.

        Raises:
            ChannelRefusal: it may not (403).
        """
        if self.everywhere:
            return
        expressions = self.permissions.get(vhost, ("^$", "^$", "^$"))
        expression = expressions[("configure", "write", "read").index(what)]
        name = name or ("amq.default" if kind == "exchange" else name)
        if not expression or not re.search(expression, name):
            place = f"{kind} '{name}' in vhost '{vhost}'"
            raise ChannelRefusal(403, f"access to {place} refused for user '{self.name}'")
