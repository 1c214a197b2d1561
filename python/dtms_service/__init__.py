"""The service: everything of DTMS but its clients."""

import os

# Gateways are started by fork and exec. What gRPC would do around a fork, for a child that goes on using it, stops its
# threads in the service for nothing. Read when gRPC is loaded.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
