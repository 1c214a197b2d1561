"""The command `dtms`. A command is imported when it is run: a service starts in half the time for it."""

from __future__ import annotations

import sys

import cyclopts

app = cyclopts.App(
    name="dtms",
    help="Defensive Trade Management System: one authority over open MetaTrader 5 positions.",
    version_flags=["--version"],
)
app.command("dtms_service.cli.serve:serve", help="Run the service until SIGTERM.")
app.command("dtms_service.cli.runs:replay", help="Run price history through the real service in virtual time.")
app.command(
    "dtms_service.cli.runs:demo",
    help="Replay a year of real EURUSD prices through service, paper broker and managers; show and report it.",
)
app.command(
    "dtms_service.cli.runs:gateway",
    help="Put a broker behind a service: a MetaTrader 5 terminal, or the paper broker with a history.",
)
app.command(
    "dtms_service.cli.runs:show_shadow", name="shadow-report", help="Show what a shadow run would have changed."
)
app.command(
    "dtms_service.cli.doctor:doctor", help="Find the usual faults and say how to mend each; looks, and changes nothing."
)
app.command("dtms_service.cli.look:status", help="Show what the service does and how it is.")
app.command("dtms_service.cli.look:watch", help="Follow all trades live; resumes by itself after an outage.")
app.command("dtms_service.cli.look:explain", help="Say why a proposal was decided as it was, or what led to an event.")
app.command(
    "dtms_service.cli.operate:notify_test", help="Send one message to each target of the section [notifications]."
)
app.command("dtms_service.cli.operate:trading_state", help="Set ACTIVE, REDUCING or HALTED.")
app.command(
    "dtms_service.cli.operate:kill",
    help="Throw a kill switch: it stops managers and takes the trades it covers from them.",
)
app.command("dtms_service.cli.operate:release", help="Release a kill switch.")
app.command(
    "dtms_service.cli.operate:reload", help="Make the service read configuration, tokens and certificates again."
)
app.command("dtms_service.cli.journal:app", name="journal", help="Prove, export and copy what is recorded.")
app.command(
    "dtms_service.cli.managers:exit_manager",
    help_flags=[],
    help="Run the Intelligent Exit Manager against a service (its own --help says more).",
)
app.command(
    "dtms_service.cli.managers:universal_manager",
    help_flags=[],
    help="Run the Universal Manager against a service (its own --help says more).",
)


def main() -> None:
    """Errors that the user can mend are one line; anything else is a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from dtms_service.cli.common import MENDABLE, fail  # noqa: PLC0415  what it needs, only a failure pays for

        if not isinstance(error, MENDABLE):
            raise
        fail(str(error))
