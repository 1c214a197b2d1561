"""`python -m dtms_client.universal_manager`."""

import os
import sys

# gRPC reads it when it is loaded; lines of its core would stand between ours, which are JSON.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from dtms_client.universal_manager.command import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
