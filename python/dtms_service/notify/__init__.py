"""Facts that people must hear of, through apprise. Costs nothing but messages when a target is slow, dead or flooded.

``Notifier`` chooses and words durable events, ``Target`` delivers on a thread of its own, ``senders`` knows apprise.
"""

from dtms_service.notify.notifier import Notifier, check
from dtms_service.notify.senders import AppriseSender, open_senders
from dtms_service.notify.target import Notice, Sender, Target

__all__ = ["AppriseSender", "Notice", "Notifier", "Sender", "Target", "check", "open_senders"]
