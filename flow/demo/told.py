"""What flow logs, as a part of the story."""

import logging
from collections.abc import Callable

from flow.message import Message

TOGETHER = 1.0  # seconds


class Told(logging.Handler):
    """Hands what is logged to the story; what is said of many at once is said of the first."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say
        self._said: set[str] = set()
        self._last: dict[tuple[object, ...], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Say the sentence of *record*."""
        if isinstance(record.args, tuple) and any(isinstance(one, Message) for one in record.args):
            if record.msg in self._said:
                return
            self._said.add(record.msg)
        if isinstance(record.args, tuple):
            what = (record.msg, *record.args[1:])
            since = record.created - self._last.get(what, 0.0)
            self._last[what] = record.created
            if since < TOGETHER:
                return
        self._say(f"flow: {record.getMessage()}")
