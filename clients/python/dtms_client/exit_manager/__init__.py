"""Intelligent Exit Manager: protects profit by proposals to DTMS. `command.main` is its entry."""
