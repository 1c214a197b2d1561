"""The service that the tests of old defects share with those of the wire."""

from tests.grpc.conftest import stack

__all__ = ["stack"]
