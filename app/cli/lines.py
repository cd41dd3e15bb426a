"""What the libraries log, as our own lines.

Rule: with the fault's name and place and never its words, which may be private.
"""

import logging
from typing import Any

from app import logs

log = logs.logger("server")


class OurLines(logging.Handler):
    """One record, one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        values: dict[str, Any] = {"source": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            values |= {"fault": type(record.exc_info[1]).__name__, "at": logs.where(record.exc_info[1])}
            log.log(record.levelno, "a library reports a fault", **values)
        else:
            # uvicorn's own sentences name processes and settings. Those of others may hold what passed through them.
            words = record.getMessage() if record.name.startswith("uvicorn") else str(record.msg)
            log.log(record.levelno, words.splitlines()[0] if words else "", **values)


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"ours": {"class": "app.cli.lines.OurLines"}},
    "root": {"handlers": ["ours"], "level": "WARNING"},
    "loggers": {"uvicorn": {"level": "WARNING"}},
}
