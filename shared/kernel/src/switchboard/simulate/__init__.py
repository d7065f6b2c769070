"""A message's life on paper: the rules that run in production, a clock that jumps, providers that follow a script.

- `scenario` is what people write down,
- `play` runs it and returns what happened, the same every time.
"""

from switchboard.simulate.play import Played, play
from switchboard.simulate.scenario import Scenario

__all__ = ["Played", "Scenario", "play"]
