"""Where the service is in its life."""

from enum import Enum, auto


class Stage(Enum):
    RECOVERING = auto()  # replaying or comparing with the broker: no writes
    SERVING = auto()
    DRAINING = auto()  # ending: no new writes
