"""Deaths one after another: each start of a service under test takes the next crash point from its list.

Python runs this before anything else in a process that has this folder on its path.
`SWITCHBOARD_DEATHS` is a file with one value of `SWITCHBOARD_CRASH_AT` a line. A start with none left lives.
"""

import os
from pathlib import Path


def _take_the_next() -> None:
    deaths = Path(os.environ["SWITCHBOARD_DEATHS"])
    point, _, left = deaths.read_text().partition("\n")
    if point:
        deaths.write_text(left)
        os.environ["SWITCHBOARD_CRASH_AT"] = point


if "SWITCHBOARD_DEATHS" in os.environ:
    _take_the_next()
