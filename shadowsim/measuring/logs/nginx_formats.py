"""Turns an nginx log_format into a pattern for its lines."""

from __future__ import annotations

import re

from shadowsim.errors import InputError
from shadowsim.scenario.log_forms import IN_QUOTES, NGINX_TIMES

# The variables that are read, and what their values look like: it tells where a free text before them ends.
VALUES = {
    "msec": r"\d+\.\d+",
    "time_iso8601": r"\d{4}-\S+",
    "time_local": r"\d{1,2}/\w{3}/\d{4}:\S+ [+-]\d{4}",
    "status": r"\d{3}",
    "request_time": r"\d+\.\d+",
    "upstream_response_time": r"(?:\d+\.\d+|-)(?:(?:, | : )(?:\d+\.\d+|-))*|",
    "request_length": r"\d+",
    "bytes_sent": r"\d+",
    "body_bytes_sent": r"\d+|-",
}
BODY_BYTES = "body_bytes_sent"

_DIRECTIVE = re.compile(r"\s*log_format\s+\S+\s+(?:escape=\w+\s+)?(?P<parts>.*?);?\s*", re.DOTALL)
_PART = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def format_text(log_format: str) -> str:
    """Return the format alone of a whole log_format directive, or of its quoted parts; leave a bare format as it is."""
    directive = _DIRECTIVE.fullmatch(log_format)
    quoted = directive["parts"] if directive else log_format.strip()
    parts = _PART.findall(quoted)
    if parts and (directive or (quoted.startswith("'") and quoted.endswith("'"))):
        return "".join(single or double for single, double in parts).replace("\\'", "'")
    return quoted


def pattern_of(log_format: str) -> re.Pattern[str]:
    """Return a pattern that matches lines of a format, with groups for the variables that are read.

    Raises
    ------
    InputError
        The format has no time, or two variables stand side by side, so that no sign tells where one ends.
    """
    text = format_text(log_format)
    pieces: list[str] = []
    known: set[str] = set()
    end = 0
    matches = list(_VARIABLE.finditer(text))
    for i, match in enumerate(matches):
        name = match[1] or match[2]
        literal = text[end : match.start()]
        if i and not literal:
            what = f"must have a sign between ${name} and the variable before it, or nothing tells where one ends"
            raise InputError("log_format", what, text)
        pieces.append(re.escape(literal))
        following = text[match.end() : match.end() + 1]
        # nginx escapes quotes within values; other values may hold the next sign, so the shortest that fits is taken.
        value = IN_QUOTES if following == '"' else r".*?" if following else r".*"
        wanted = name in VALUES and name not in known
        value = VALUES.get(name, value)
        pieces.append(f"(?P<{name}>{value})" if wanted else f"(?:{value})")
        known.add(name)
        end = match.end()
    pieces.append(re.escape(text[end:]))
    if not known & set(NGINX_TIMES):
        names = ", ".join(f"${name}" for name in NGINX_TIMES)
        raise InputError("log_format", f"must have one of {names}, which are the times of a request's end", text)
    return re.compile("".join(pieces))
