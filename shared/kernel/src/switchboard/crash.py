"""Named places where a process can be told to die, so that tests can prove what survives (DESIGN 11).

`SWITCHBOARD_CRASH_AT=router.after_commit` kills the process with SIGKILL the first time it gets there,
`…=router.after_commit:20` the twentieth time. Unset, a crash point is one comparison.
"""

import os
import signal
from itertools import count
from typing import Final

_NAME, _, _NUMBER = os.environ.get("SWITCHBOARD_CRASH_AT", "").partition(":")
_AT: Final = int(_NUMBER or 1)
_visits = count(1)

#: Every crash point there is; an architecture test compares this with the calls in the code.
CRASH_POINTS: Final = (
    "ingress.before_produce",
    "ingress.after_produce",
    "router.after_commit",
    "router.after_publish",
    "adapter.after_claim",
    "adapter.after_submit",
    "adapter.after_publish",
    "delivery.after_post",
    "delivery.after_record",
    "drainer.after_claim",
)


def crash_point(name: str) -> None:
    """Die here, at once and without clean-up, if the environment says so."""
    if name == _NAME and next(_visits) == _AT:
        os.kill(os.getpid(), signal.SIGKILL)
