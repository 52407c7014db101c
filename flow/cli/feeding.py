"""How messages get into a queue of a broker in memory: the command that pushes them."""

import shlex

from flow.topology import Topology

WORDS = ("acme", "system", "action")
"""What stands where a binding takes any word."""


def feeding(queue: str, topology: Topology, url: str) -> str:
    """Return the `flow push` that reaches *queue* of *topology* at *url*.

    It goes the way of the first binding, or by the name of the queue where it has none.
    """
    bound = [one for one in topology.bindings if one.queue == queue != one.key]  # not that of the retry loop
    exchange, key = (bound[0].exchange, matching(bound[0].key)) if bound else ("", queue)
    return f"{shlex.join(['flow', 'push', exchange, key])} FILE --amqp-url {shlex.quote(url)}"


def matching(key: str) -> str:
    """Return a routing key that the *key* of a binding takes, like acme.system.action for acme.*.*."""
    words = key.replace("#", "*.*.*").split(".")
    return ".".join(WORDS[min(place, 2)] if word == "*" else word for place, word in enumerate(words))
