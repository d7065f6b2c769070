"""Where commands print."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

#: Into a file or a pipe lines are not folded at the width of a terminal that is not there.
_WIDE: Final = 240


def screen(*, markup: bool = True) -> Console:
    """Standard output, coloured where it is a terminal."""
    return Console(highlight=False, markup=markup, width=None if sys.stdout.isatty() else _WIDE)
