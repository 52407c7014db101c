"""What every peer shares: its command line, its clock, and the line in which it reports."""

import argparse
import asyncio
import json
import os
import resource
import time
from collections.abc import Coroutine
from typing import Any


class Clock:
    """Counts deliveries, and the seconds and the CPU from the first one to the last acknowledgement."""

    def __init__(self) -> None:
        """Read the command line; the URL comes from the environment, where no other account sees it."""
        parser = argparse.ArgumentParser()
        parser.add_argument("queue")
        parser.add_argument("messages", type=int)
        parser.add_argument("prefetch", type=int)
        parser.add_argument("kind")
        parser.add_argument("--uvloop", action="store_true")
        self.options = parser.parse_args()
        self.url = os.environ["AMQP_URL"]
        self.seen = 0
        self._began = self._used = 0.0

    def tick(self) -> bool:
        """Count a delivery; True for the last one."""
        if not self.seen:
            self._began, self._used = time.monotonic(), cpu()
        self.seen += 1
        return self.seen == self.options.messages

    def report(self, **more: object) -> None:
        """Stop the clock and print what it shows; the last acknowledgement must have reached the broker."""
        seconds, used = time.monotonic() - self._began, cpu() - self._used
        print(json.dumps({"seen": self.seen, "seconds": seconds, "cpu": used, **more}))

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run *main* on asyncio's own loop, or on uvloop if asked to."""
        factory = None
        if self.options.uvloop:
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)


def cpu() -> float:
    """Return the CPU seconds this process has used, in user code and in the kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
