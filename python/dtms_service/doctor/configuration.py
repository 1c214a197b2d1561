"""The configuration as `dtms serve` would read it: file, environment, command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from dtms_service.config import CLIENT_VARIABLES, PREFIX
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok, skipped
from dtms_service.errors import ConfigInvalid
from dtms_service.notify import check as check_notifications
from dtms_service.settings import configuration
from dtms_service.supervisor import check_gateways

CHECK: Final = "configuration"


def examine(case: Case) -> Iterator[Finding]:
    mine = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in CLIENT_VARIABLES)
    at = ", ".join([str(case.config_file)] * (case.config_file is not None) + mine) or "--data-dir"
    if case.config_file is None and case.data_dir is None and not mine:
        yield skipped(CHECK, "--config, --data-dir, environment", "none was given: a service elsewhere, or none")
        return
    try:
        config = case.config = configuration(case.config_file, paper=case.paper, given={"data_dir": case.data_dir})
        check_notifications(config.notifications)
        check_gateways(config, os.environ)
    except ConfigInvalid as error:
        for violation in error.violations:
            yield fail(CHECK, at, str(violation), "correct this key: docs/operations.md, Configuration")
        return
    yield ok(CHECK, at, f"profile {config.profile}, {'shadow' if config.shadow else 'live'}, port {config.server.port}")
