"""What every manager needs to run: views on trades and quotes, wishes, the cycle, live and lockstep.

A manager is a :class:`~dtms_client.managing.brain.Brain`: it says what it wishes for a trade. `live.Live` runs one on a
running service, `lockstep.Lockstep` in a replay, `command` from a command line.
"""
