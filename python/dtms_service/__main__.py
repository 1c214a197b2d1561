"""`python -m dtms_service` is `dtms`."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read once, at the first import of grpc

from dtms_service.cli import main

if __name__ == "__main__":
    main()
