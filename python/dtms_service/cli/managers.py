"""The managers, as commands of `dtms`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from dtms_service.cli.common import LOOP_FACTORY


def exit_manager(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run the Intelligent Exit Manager against a service (its own --help says more)."""
    from dtms_client.exit_manager.__main__ import main as exit_manager_main  # noqa: PLC0415  one of the two is run

    sys.exit(exit_manager_main(list(arguments), loop_factory=LOOP_FACTORY))


def universal_manager(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run the Universal Manager against a service (its own --help says more)."""
    from dtms_client.universal_manager.__main__ import main as universal_manager_main  # noqa: PLC0415

    sys.exit(universal_manager_main(list(arguments), loop_factory=LOOP_FACTORY))
