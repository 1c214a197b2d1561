"""`dtms gateway` as a process of its own, with the account and the history of the tests.

python -m tests.grpc.gateway_child ADDRESS FOLDER TOKEN_FILE TICKS
"""

from __future__ import annotations

import sys
from pathlib import Path

from dtms_service.gateway.process import GatewayOptions, run_gateway
from dtms_service.replay.entries import parse_trades
from tests.unit.replay_world import job, ticks

TRADE = "BUY@2017-01-03T10:00:01,0.10,sl=1.09900,tp=1.10300"


def options(address: str, folder: Path, token_file: Path, count: int) -> GatewayOptions:
    """A history of ``count`` seconds: a trade at the second, bars of a minute. A lost service is not waited for."""
    return GatewayOptions(
        service=address,
        token_file=token_file,
        trader_token_file=folder / "trader.token",
        root_certificates=None,
        job=job(folder / "run", ticks([1.1 + (index % 5) / 10_000 for index in range(count)]), parse_trades([TRADE])),
        patience_s=0.0,
    )


if __name__ == "__main__":
    address, folder, token_file, count = sys.argv[1:]
    sys.exit(run_gateway(options(address, Path(folder), Path(token_file), int(count))))
