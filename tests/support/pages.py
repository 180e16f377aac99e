"""Reads pages: the figures that they draw, and the script that they unpack."""

import gzip
import json
import re
from base64 import b64decode


def unpacked(page, key):
    """Return a compressed text of a page, "" where there is none."""
    found = re.search(f'<script type="text/plain" id="{key}">(.*?)</script>', page)
    return gzip.decompress(b64decode(found[1])).decode() if found else ""


def figures_of(page):
    """Return the figures of a page by their keys."""
    return json.loads(unpacked(page, "data") or "{}")
