"""`python -m switchboard_ingress`: the service as a process. Settings come from the environment."""

from switchboard.runtime import run
from switchboard.store.pool import PLANS_FOR_EACH_CALL
from switchboard_ingress.service import compose
from switchboard_ingress.settings import IngressSettings

if __name__ == "__main__":
    run("ingress", IngressSettings, compose, plans=PLANS_FOR_EACH_CALL)
