"""Writes down what a client sends and gets, for the outside checker; the format stands in tests/checker/evidence.py.

It sits where gRPC takes the call over, so it records any client as it is. A manager that is a program of its own is
started through it:

    python -m tests.scenarios.recorder LOG NAME MODULE ARGUMENT...
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import runpy
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio
from google.protobuf.message import Message

from dtms_client import AsyncClient
from dtms_client._channel import Target
from dtms_client.errors import from_rpc


class Recorder(AbstractContextManager["Recorder"]):
    """One client log. Lines are handed to the system whole: a kill tears none, and loses none that was written."""

    def __init__(self, path: Path, client: str) -> None:
        self._client = client
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._numbers = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """For the channel of the client."""
        return [_Unary(self), _Stream(self)]

    def sent(self, details: grpc.aio.ClientCallDetails, request: Message) -> int:
        number = next(self._numbers)
        method: str | bytes = details.method  # bytes, whatever its type says
        facts = {
            "client": self._client,
            "method": method.decode() if isinstance(method, bytes) else method,
            "deadline_s": details.timeout,
        }
        self._write(number, "sent", **facts, request=_text(request))
        return number

    def answered(self, number: int, response: Message) -> None:
        self._write(number, "answered", response=_text(response))

    def streamed(self, number: int, response: Message) -> None:
        self._write(number, "streamed", response=_text(response))

    def failed(self, number: int, failure: grpc.aio.AioRpcError) -> None:
        error = from_rpc(failure, method="")
        facts = {"code": failure.code().name, "reason": error.reason, "metadata": dict(error.metadata)}
        self._write(number, "failed", **facts)

    def given_up(self, number: int) -> None:
        """The client itself has cancelled the call."""
        self._write(number, "failed", code="CANCELLED", reason="", metadata={})

    def _write(self, number: int, kind: str, **facts: object) -> None:
        if not self._file.closed:
            self._file.write(json.dumps({"n": number, "kind": kind, "at_s": time.monotonic(), **facts}) + "\n")


class RecordedClient(AsyncClient):
    """An AsyncClient whose calls are recorded."""

    def __init__(self, recorder: Recorder, address: str, *, token_file: Path) -> None:
        super().__init__(address, token_file=token_file)
        fields = {field.name: getattr(self._target, field.name) for field in dataclasses.fields(self._target)}
        self._target = _RecordedTarget(**fields, recorder=recorder)


@dataclasses.dataclass(frozen=True, slots=True)
class _RecordedTarget(Target):
    recorder: Recorder

    def open_aio(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            self.address, options=self.options(), interceptors=self.recorder.interceptors()
        )


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        number = self._recorder.sent(details, request)
        call = await continuation(details, request)
        try:
            self._recorder.answered(number, await call)
        except grpc.aio.AioRpcError as failure:
            self._recorder.failed(number, failure)
        except BaseException:
            self._recorder.given_up(number)
            raise
        return call


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> AsyncIterator[Any]:
        number = self._recorder.sent(details, request)
        return self._read(number, await continuation(details, request))

    async def _read(self, number: int, call: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for response in call:
                self._recorder.streamed(number, response)
                yield response
        except grpc.aio.AioRpcError as failure:
            self._recorder.failed(number, failure)
            raise


def _text(message: Message) -> str:
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()


def main(log: Path, client: str, module: str, arguments: list[str]) -> None:
    """Runs a program with every channel that it opens recorded."""
    with Recorder(log, client) as recorder:
        opens = grpc.aio.insecure_channel
        grpc.aio.insecure_channel = functools.partial(opens, interceptors=recorder.interceptors())
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
