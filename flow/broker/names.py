"""Lets the client library send every name that RabbitMQ takes; by itself it takes ASCII only."""

import functools
import re

from pamqp.constants import DOMAIN_REGEX


@functools.cache
def any_name() -> None:
    """Leave the check of names to the broker, for this process."""
    for domain in ("exchange-name", "queue-name"):
        DOMAIN_REGEX[domain] = re.compile(r".*", re.DOTALL)
