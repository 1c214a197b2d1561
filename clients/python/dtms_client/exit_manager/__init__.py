"""Intelligent Exit Manager: protects profit by proposals to DTMS."""

from dtms_client.exit_manager.command import main

__all__ = ["main"]
