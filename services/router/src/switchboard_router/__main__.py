"""`python -m switchboard_router`."""

from switchboard.runtime import run
from switchboard_router.compose import compose
from switchboard_router.settings import RouterSettings

if __name__ == "__main__":
    run("router", RouterSettings, compose)
