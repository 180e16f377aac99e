"""Formats the lines of the log as text, or as JSON with their times."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

FORMATS = ("text", "json")


def start_log(form: str, process: str = "") -> None:
    """Write the log to standard error, as text or as a JSON object a line; with the process's name if it has one."""
    handler = logging.StreamHandler()
    text = f"%(levelname)s {process}: %(message)s" if process else "%(levelname)s %(message)s"
    handler.setFormatter(JsonFormatter(process) if form == "json" else logging.Formatter(text))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """Formats a record as an object with time (UTC), level, logger, message and, after an exception, its traceback.

    Parameters
    ----------
    process : str
        Name of one of several processes; "" for the only one.
    """

    def __init__(self, process: str = ""):
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if self._process:
            line["process"] = self._process
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
