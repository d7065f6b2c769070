"""`python -m switchboard_callback_delivery`."""

from switchboard.runtime import run
from switchboard_callback_delivery.compose import GROUP, compose
from switchboard_callback_delivery.settings import DeliverySettings

if __name__ == "__main__":
    run(GROUP, DeliverySettings, compose)
