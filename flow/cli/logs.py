"""How `flow` logs: lines for people or JSON, to standard error; never a body, an address or a secret."""

import json
import logging
import sys
import time
import traceback
from typing import Any


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, text."""

    def __init__(self, *, tracebacks: bool, worker: int | None) -> None:
        who = "" if worker is None else f"worker {worker}: "
        super().__init__(f"%(asctime)s %(levelname)-7s {who}%(message)s", "%H:%M:%S")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Add the traceback of a callback's error when asked for."""
        line = super().format(record)
        error = getattr(record, "error", None)
        if self._tracebacks and isinstance(error, BaseException):
            line += "\n" + "".join(traceback.format_exception(error)).rstrip()
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message; among several workers also which one."""

    def __init__(self, *, tracebacks: bool, worker: int | None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Write one JSON object."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | self._worker
        error = getattr(record, "error", None)
        if self._tracebacks and isinstance(error, BaseException):
            line["traceback"] = "".join(traceback.format_exception(error))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False)


def configure(style: str, level: str, *, tracebacks: bool, worker: int | None = None) -> None:
    """Send flow's own log to standard error in *style* (console or json) from *level* on.

    Each line names the *worker*, if there is one.

    Tracebacks of callbacks are printed only when asked for: the texts of errors may quote personal data.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if style == "json" else ConsoleFormatter
    handler.setFormatter(formatter(tracebacks=tracebacks, worker=worker))
    logging.raiseExceptions = False  # a closed log pipe must not disturb consuming
    logger = logging.getLogger("flow")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
