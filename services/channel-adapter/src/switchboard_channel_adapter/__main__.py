"""`python -m switchboard_channel_adapter`."""

from switchboard.runtime import run
from switchboard_channel_adapter.compose import compose
from switchboard_channel_adapter.settings import AdapterSettings

if __name__ == "__main__":
    run("channel-adapter", AdapterSettings, compose)
