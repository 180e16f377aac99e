"""Bodies of requests: files, folders, lines, rows of arrays, captures, random bytes; and what is refused."""

import hashlib
import io
import json

import numpy as np
import pytest
from captured import TIME, record, write_captures

from shadowsim.errors import InputError
from shadowsim.measuring.bodies import Bodies, random_bodies, read_bodies

del TIME, record, write_captures
