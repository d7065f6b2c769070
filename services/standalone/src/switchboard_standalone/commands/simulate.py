"""`switchboard simulate`."""

from __future__ import annotations

import sys
from pathlib import Path

from switchboard.simulate import play
from switchboard.simulate.play import NeverEnds
from switchboard_standalone.scenario_file import read_scenario
from switchboard_standalone.trouble import EXIT_FAILED, Refused


async def simulate(path: Path) -> int:
    """Play the scenario of a file. The timeline goes to standard output, what was not expected to standard error."""
    scenario = read_scenario(path)
    try:
        played = play(scenario)
    except NeverEnds as error:
        raise Refused(f"{path}: {error}") from None
    sys.stdout.write(played.to_json().decode())
    differences = played.differences(scenario.expect) if scenario.expect is not None else []
    for difference in differences:
        sys.stderr.write(f"switchboard: {path}: {difference}\n")
    return EXIT_FAILED if differences else 0
