"""Calls of the Open Inference Protocol over gRPC: servers in this process, and requests put together as no client would."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import httpx

from service.core.runtime import Runtime
from service.grpc.messages import CLASSES, HEALTH_SERVICE, SERVICE
from tests.fakes import PATIENCE_S, toy_runtime
from tests.integration.in_process import listening
from tests.open_inference import packed

Metadata = Sequence[tuple[str, str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Caller:
    """A client that sends and takes whatever it is told."""

    def __init__(self, address: str, url: str, runtime: Runtime | None = None) -> None:
        self.address, self.url = address, url
        self.runtime = runtime
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        )

    def start(self, method: str, data: Any, service: str = SERVICE, metadata: Metadata = (), **options: Any) -> Any:
        """A call in flight, of a message or of bytes."""
        if not isinstance(data, bytes):
            data = data.SerializeToString()
        call = self.channel.unary_unary(f"/{service}/{method}")
        return call.future(data, metadata=tuple(metadata), **{"timeout": PATIENCE_S, **options})

    def call(self, method: str, data: Any = b"", answer: str | None = None, **options: Any) -> Any:
        """The answer."""
        return CLASSES[answer or f"{method}Response"].FromString(self.start(method, data, **options).result())

    def infer(self, data: Any, **options: Any) -> Any:
        """Of inference."""
        return self.call("ModelInfer", data, **options)

    def refused(self, data: Any, method: str = "ModelInfer", **options: Any) -> grpc.RpcError:
        """The error, where there must be one."""
        error = self.start(method, data, **options).exception()
        assert error is not None
        return error

    def health(self, service: str = "") -> int:
        """What the health service says."""
        request = CLASSES["HealthCheckRequest"](service=service)
        answer = self.call("Check", request, "HealthCheckResponse", service=HEALTH_SERVICE)
        status: int = answer.status
        return status

    def metric(self, sample: str) -> float:
        """The value of a sample, labels and all; 0: it is not there."""
        lines = [line.rpartition(" ") for line in httpx.get(f"{self.url}/metrics").text.splitlines()]
        return next((float(value) for name, _, value in lines if name == sample), 0.0)


@contextmanager
def grpc_serving(runtime: Runtime | None = None, **settings: Any) -> Iterator[Caller]:
    """A client of a server that is ready."""
    runtime = runtime or toy_runtime(grpc_port=free_port(), **settings)
    with listening(runtime) as (host, port):
        caller = Caller(f"{host}:{runtime.settings.grpc_port}", f"http://{host}:{port}", runtime)
        with caller.channel:
            yield caller


def request_of(*files: bytes, typed: bool = False, shape: Sequence[int] | None = None, **members: Any) -> Any:
    """A request with files, raw or in typed contents."""
    request = CLASSES["ModelInferRequest"](**{"model_name": "toy", **members})
    tensor = request.inputs.add(name="images", datatype="BYTES", shape=[len(files)] if shape is None else shape)
    if typed:
        tensor.contents.bytes_contents.extend(files)
    else:
        request.raw_input_contents.append(packed(*files))
    return request


def with_parameters(request: Any, **parameters: Any) -> Any:
    """The same request with `name=(kind, value)`, such as `timeout=("int64_param", 5)`."""
    for name, (kind, value) in parameters.items():
        setattr(request.parameters[name], kind, value)
    return request


def with_outputs(request: Any, *names: str) -> Any:
    """The same request, which wants these outputs."""
    for name in names:
        request.outputs.add(name=name)
    return request
