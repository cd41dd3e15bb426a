"""Structured logs: constant messages, values beside them under keys, and one filter that drops what is private.

Rule 1: a message is a constant. Rule 2: keys that hold what a person said, pressed or is called begin with `private.`; they never
leave the process. Rule 3: nothing is logged per frame.
"""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

NUMBER = re.compile(r"\+?\d[\d\s().-]{6,}\d")


def drop_private(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every key that begins with `private.`; mask anything that looks like a telephone number in what is left."""
    for key in [key for key in line if key.startswith("private.")]:
        del line[key]
    for key, value in line.items():
        if key not in ("timestamp", "call_id", "event", "worker") and isinstance(value, str) and NUMBER.fullmatch(value):
            line[key] = "(number)"
    return line


def set_up(level: str = "info", *, as_json: bool | None = None) -> None:
    """Log to standard error: JSON lines for machines, or readable lines when a person sits at a terminal."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_private,
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(room: str) -> Any:
    """A room's logger."""
    return structlog.get_logger(room=room)


def where(fault: BaseException) -> str:
    """Where an exception came from: files and lines only. Its words, and the values around it, may be private."""
    frames = traceback.extract_tb(fault.__traceback__)
    return " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-6:])
