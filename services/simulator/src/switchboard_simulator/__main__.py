"""`python -m switchboard_simulator`: runs until SIGTERM or SIGINT. The first line on standard output is its ports."""

import asyncio
import signal
import sys
from typing import Final

import msgspec
import structlog
import uvloop

from switchboard.runtime import EXIT_BAD_SETTINGS, configure_logs
from switchboard.settings import SettingsError, read_settings
from switchboard_simulator.service import running
from switchboard_simulator.settings import SimulatorSettings

_CANNOT_LISTEN: Final = 71

log = structlog.get_logger()


def main() -> None:
    """Run the simulator to its end and exit with a code that says how it ended."""
    try:
        settings = read_settings(SimulatorSettings)
    except SettingsError as error:
        sys.stderr.write(f"simulator: {error}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    configure_logs("simulator", settings.log_level)
    try:
        uvloop.run(_run(settings))
    except OSError as error:
        # A port that is taken, a log that cannot be written: nothing a restart would mend.
        sys.stderr.write(f"simulator: {error.strerror or error}: choose other ports or paths\n")
        sys.exit(_CANNOT_LISTEN)


async def _run(settings: SimulatorSettings) -> None:
    end = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, end.set)
    async with running(settings) as world:
        sys.stdout.write(msgspec.json.encode({"event": "listening", **world.ports}).decode() + "\n")
        sys.stdout.flush()
        log.info("ready", ports=world.ports)
        await end.wait()


if __name__ == "__main__":
    main()
