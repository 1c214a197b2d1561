"""``python -m tests.checker --broker-log FILE CLIENT_LOG...``: ends with 0 when every guarantee holds, else with 1."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.checker.evidence import read
from tests.checker.guarantees import VALIDATORS, check


def main() -> int:
    command = argparse.ArgumentParser(prog="python -m tests.checker", description="Checks the logs of a run.")
    command.add_argument("client_logs", nargs="+", type=Path)
    command.add_argument("--broker-log", required=True, type=Path)
    arguments = command.parse_args()
    evidence = read(arguments.client_logs, arguments.broker_log)
    violations = check(evidence)
    for violation in violations:
        print(f"{violation.guarantee}: {violation.fact}")  # noqa: T201
    counts = f"{len(evidence.calls)} calls, {len(evidence.events)} events, {len(evidence.broker)} broker lines"
    print(f"{counts}: {len(violations)} violations of {', '.join(VALIDATORS)}")  # noqa: T201
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
