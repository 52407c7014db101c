"""How `flow` logs: lines for people or JSON, to standard error; never a body, an address or a secret."""

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from flow.retries import describe

log = logging.getLogger("py.errors")  # beside py.warnings, where those of Python come from


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, text."""

    def __init__(self, *, tracebacks: bool, worker: int | None) -> None:
        who = "" if worker is None else f"worker {worker}: "
        super().__init__(f"%(asctime)s %(levelname)-7s {who}%(message)s", "%H:%M:%S")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Add class and place of an error that was logged, or its traceback when asked for."""
        record.message = text(record, whole=self._tracebacks)
        record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        if record.exc_info and record.exc_info[1] is not None:
            line += f" ({describe(record.exc_info[1])})"
        return "\n".join([line, *traces(record)]) if self._tracebacks else line


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
            "message": text(record, whole=self._tracebacks),
        } | self._worker
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        if self._tracebacks and (found := traces(record)):
            line["traceback"] = "\n".join(found)
        return json.dumps(line, ensure_ascii=False)


def text(record: logging.LogRecord, *, whole: bool) -> str:
    """Return the message of *record*.

    That of asyncio shows arguments and errors, in brackets and on further lines: only for the *whole* one.
    """
    message = record.getMessage()
    if record.name == "asyncio" and not whole:
        return re.split(r"\n|<|\((?!\))", message, maxsplit=1)[0].rstrip()
    return message


def traces(record: logging.LogRecord) -> list[str]:
    """Return the traceback of the error that *record* tells of, if any."""
    error = record.exc_info[1] if record.exc_info else getattr(record, "error", None)
    return ["".join(traceback.format_exception(error)).rstrip()] if isinstance(error, BaseException) else []


def configure(
    style: str, level: str, *, tracebacks: bool, worker: int | None = None, packages: Iterable[str] = ()
) -> None:
    """Send the log of this process to standard error in *style* (console or json).

    What flow and the user's own *packages* say is written from *level* on, of all other libraries only
    warnings: they tell of addresses that they call. Each line names the *worker*, if there is one.

    Tracebacks, and what asyncio tells of tasks, are printed only when asked for: the texts of errors may
    quote personal data. That holds for an error that ends the process or a thread, too.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if style == "json" else ConsoleFormatter
    handler.setFormatter(formatter(tracebacks=tracebacks, worker=worker))
    logging.raiseExceptions = False  # a closed log pipe must not disturb consuming
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.getLevelNamesMapping()[level.upper()], logging.WARNING))
    for name in ("flow", *packages):
        logging.getLogger(name).setLevel(level.upper())
    sys.excepthook = ended
    threading.excepthook = thread_ended
    sys.unraisablehook = unnoticed


def ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what ends the process: Python would print the text of the error."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    frames = traceback.extract_tb(trace)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    log.critical("the process ended unexpectedly%s", where, exc_info=error)


def thread_ended(args: threading.ExceptHookArgs) -> None:
    """Log what ends a thread."""
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        log.error("a thread ended unexpectedly", exc_info=args.exc_value)


def unnoticed(args: "sys.UnraisableHookArgs") -> None:
    """Log what is raised where nobody can be told, as when an object is done away with."""
    if args.exc_value is not None:
        log.error("an error came to nobody's notice", exc_info=args.exc_value)
