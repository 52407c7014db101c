"""Keeps the client library's log to itself: it holds whole frames, and what it reports is told by flow."""

import logging

LOGGERS = ("aiormq", "aiormq.connection", "aiormq.connection.marshall", "aiormq.channel")
# Records of DEBUG hold frames with bodies; one of ERROR holds a returned message (aiormq/channel.py).
WITH_MESSAGES = ("Unhandled message", "message_id if None")


def quiet() -> None:
    """Let nothing of the library's log through below CRITICAL, unless its level was set; never a body."""
    top = logging.getLogger(LOGGERS[0])
    if top.level == logging.NOTSET:
        top.setLevel(logging.CRITICAL)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(harmless)  # adding it again changes nothing


def harmless(record: logging.LogRecord) -> bool:
    """Whether *record* can hold no body."""
    return record.levelno >= logging.INFO and not str(record.msg).startswith(WITH_MESSAGES)
