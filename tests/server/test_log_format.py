"""Lines of the log in JSON."""

import json
import logging
import sys
from datetime import UTC, datetime, timedelta

from shadowsim.server.log_format import JsonFormatter


def test_a_line_is_an_object_with_its_time_and_the_traceback():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "file", 1, "failed: %s", ("\u00fc\n",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["level"], read["logger"], read["message"]) == ("ERROR", "a.b", "failed: \u00fc\n")
    assert read["exception"].endswith("ValueError: two\nlines")
    assert read["time"].endswith("Z")
    assert abs(datetime.fromisoformat(read["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
