"""The Open Inference Protocol over gRPC, against a server in this process, also with messages that no client sends."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.grpc.messages import CLASSES, HEALTH_SERVICE
from tests.fakes import PATIENCE_S, FakeSession, toy_runtime
from tests.grpc_calls import Caller, free_port, grpc_serving, request_of, with_outputs, with_parameters
from tests.integration.in_process import listening
from tests.open_inference import packed
from tests.toy_artifact import METADATA, confidence_of, pixels_of, png_of

Code = grpc.StatusCode
VERSION = METADATA.weights_sha256[:12]
KEY = "0123456789abcdef"
MAX_BODY_BYTES = 2**20
OURS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}
"""What a client's own mistake may bring; never `UNKNOWN` or `INTERNAL`."""


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with grpc_serving(max_body_bytes=MAX_BODY_BYTES, max_headers=20) as caller:
        yield caller


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


def outputs_of(answer: Any) -> dict[str, Any]:
    """The elements of each output, and its shape under `NAME.shape`; raw ones as they are."""
    found = {}
    for index, output in enumerate(answer.outputs):
        found[f"{output.name}.shape"] = list(output.shape)
        if answer.raw_output_contents:
            assert not output.HasField("contents")
            found[output.name] = answer.raw_output_contents[index]
        else:
            contents = output.contents
            found[output.name] = [*contents.fp32_contents] or [text.decode() for text in contents.bytes_contents]
    return found


def trailing(call: Any) -> dict[str, str]:
    return dict(call.trailing_metadata() or ())


@pytest.mark.parametrize("column", [False, True])
def test_files_are_read_and_answered_as_they_came(caller: Caller, column: bool) -> None:
    shape = [2, 1] if column else [2]
    files = png_of("abc"), png_of("x1")
    answer = caller.infer(request_of(*files, shape=shape, id="mine", model_version=VERSION))
    assert (answer.model_name, answer.model_version, answer.id) == ("toy", VERSION, "mine")
    assert outputs_of(answer)["text"] == packed(b"abc", b"x1")
    found = outputs_of(caller.infer(request_of(*files, shape=shape, typed=True)))
    assert found["text"] == ["abc", "x1"]
    assert found["confidence"] == [pytest.approx(confidence_of(text), abs=1e-6) for text in ("abc", "x1")]
    assert found["text.shape"] == found["confidence.shape"] == shape


def test_pixels_are_read(caller: Caller) -> None:
    request = CLASSES["ModelInferRequest"](model_name="toy")
    request.inputs.add(name="images", datatype="UINT8", shape=[1, *pixels_of("abc").shape])
    request.raw_input_contents.append(pixels_of("abc").tobytes())
    assert outputs_of(caller.infer(request))["text"] == packed(b"abc")


def test_each_image_may_have_an_error_of_its_own(caller: Caller) -> None:
    request = with_outputs(request_of(png_of("abc"), b"junk", typed=True), "error", "text", "character_confidences")
    found = outputs_of(caller.infer(request))
    assert found["text"] == ["abc", ""]
    assert found["error"][0] == ""
    assert found["error"][1].startswith("unreadable-image: ")
    assert found["character_confidences.shape"] == [2, 3]
    assert found["character_confidences"][3:] == [0, 0, 0]
    error = caller.refused(request_of(png_of("abc"), b"junk"))
    assert error.code() is Code.INVALID_ARGUMENT
    assert error.details().startswith("images[1]: The image is damaged")


def test_the_server_is_described(caller: Caller) -> None:
    assert caller.call("ServerLive").live
    assert caller.call("ServerReady").ready
    assert caller.call("ServerMetadata").name == "parseq-service"
    model = CLASSES["ModelReadyRequest"](name="toy")
    assert caller.call("ModelReady", model).ready
    described = caller.call("ModelMetadata", model)
    assert ([tensor.name for tensor in described.inputs], list(described.versions)) == (["images"], [VERSION])
    [index] = caller.call("RepositoryIndex").models
    assert (index.name, index.version, index.state) == ("toy", VERSION, "READY")
    for method in ("ModelReady", "ModelMetadata"):
        for unknown in ({"name": "nosuch"}, {"name": "toy", "version": "7"}, {}):
            error = caller.refused(CLASSES["ModelReadyRequest"](**unknown), method)
            assert error.code() is Code.NOT_FOUND
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        error = caller.refused(b"", method)
        assert (error.code(), "SIGHUP" in error.details()) == (Code.INVALID_ARGUMENT, True)
    assert caller.refused(b"", "ModelStatistics").code() is Code.UNIMPLEMENTED


def test_health_is_told_as_load_balancers_ask_for_it(caller: Caller) -> None:
    for service in ("", "inference.GRPCInferenceService", "readiness", "liveness"):
        assert caller.health(service) == 1
    unknown = CLASSES["HealthCheckRequest"](service="nosuch")
    error = caller.refused(unknown, "Check", service=HEALTH_SERVICE)
    assert (error.code(), "readiness" in error.details()) == (Code.NOT_FOUND, True)
    assert caller.refused(b"\xff", "Check", service=HEALTH_SERVICE).code() is Code.INVALID_ARGUMENT
    watch = caller.channel.unary_stream(f"/{HEALTH_SERVICE}/Watch")(unknown.SerializeToString())
    assert CLASSES["HealthCheckResponse"].FromString(next(watch)).status == 3
    watch.cancel()


@pytest.mark.parametrize(
    ("request_", "code", "told"),
    [
        (request_of(b"x", model_name="nosuch"), Code.NOT_FOUND, "those there are: toy"),
        (request_of(b"x", model_name=""), Code.NOT_FOUND, "those there are: toy"),
        (request_of(b"x", model_version="7"), Code.NOT_FOUND, "there is version 000000000000 and no other"),
        (request_of(b"x", shape=[7]), Code.INVALID_ARGUMENT, r"images\[1\]: the tensor ends before it does"),
        (request_of(b"x", b"y", shape=[1]), Code.INVALID_ARGUMENT, "more bytes than in the 1 elements"),
        (request_of(b"x", typed=True, shape=[7]), Code.INVALID_ARGUMENT, "has 1 elements, and its shape says 7"),
        (request_of(b"x", shape=[2**62]), Code.INVALID_ARGUMENT, "128 crops at most"),
        (request_of(b"x", shape=[-1]), Code.INVALID_ARGUMENT, "none of them below 0"),
        (request_of(b"x", shape=[0]), Code.INVALID_ARGUMENT, "at least one image"),
        (request_of(b"x", shape=[]), Code.INVALID_ARGUMENT, "images.shape"),
        (request_of(b"x", shape=[1, 2]), Code.INVALID_ARGUMENT, r"it must be \[n\] or \[n, 1\]"),
        (request_of(b"x", id="i" * 257), Code.INVALID_ARGUMENT, "id: must be a text of up to 256 characters"),
        (with_outputs(request_of(b"x"), "nosuch"), Code.INVALID_ARGUMENT, "there is no output `nosuch`"),
        (with_outputs(request_of(b"x"), "text", "text"), Code.INVALID_ARGUMENT, "is wanted twice"),
        (with_parameters(request_of(b"x"), timeout=("string_param", "1")), Code.INVALID_ARGUMENT, "number of microseconds"),
        (with_parameters(request_of(b"x"), priority=("double_param", 1)), Code.INVALID_ARGUMENT, "must be an integer"),
        (with_parameters(request_of(b"x"), timeout=("double_param", float("nan"))), Code.INVALID_ARGUMENT, "images"),
        (CLASSES["ModelInferRequest"](model_name="toy"), Code.INVALID_ARGUMENT, "must be a list of one tensor"),
        (b"", Code.NOT_FOUND, "no model ``"),
        (b"junk", Code.INVALID_ARGUMENT, "or it is broken"),
    ],
)
def test_what_is_wrong_is_told(caller: Caller, request_: Any, code: Code, told: str) -> None:
    error = caller.refused(request_)
    assert error.code() is code
    assert re.search(told, error.details()), error.details()


def broken_requests() -> Iterator[Any]:
    """Tensors and contents that do not go together."""
    for name, datatype in (("other", "BYTES"), ("images", "FP32"), ("images", ""), ("images", "UINT8")):
        request = request_of(b"x")
        request.inputs[0].name, request.inputs[0].datatype = name, datatype
        yield request
    for n_raw, n_inputs in ((0, 1), (2, 1), (1, 2), (2, 2), (10_000, 1), (1, 10_000), (10_000, 10_000)):
        request = CLASSES["ModelInferRequest"](model_name="toy")
        for _ in range(n_inputs):
            request.inputs.add(name="images", datatype="BYTES", shape=[1])
        request.raw_input_contents.extend([packed(b"x")] * n_raw)
        yield request
    both = request_of(b"x")
    both.inputs[0].contents.bytes_contents.append(b"x")
    yield both
    for shape in ([1, 2**40, 2**40, 3], [1, 0, 0, 3], [2**40, 1, 1, 3], [1, 4, 4, 4], [1, -1, 4, 3], [1] * 500, [-(2**63)]):
        request = request_of(b"x", shape=shape)
        request.inputs[0].datatype = "UINT8"
        yield request
    pixels = request_of(typed=True, shape=[1, 4, 4, 3])
    pixels.inputs[0].datatype = "UINT8"
    pixels.inputs[0].contents.uint_contents.extend([0] * 48)
    yield pixels
    for contents in ("bool_contents", "int64_contents", "fp32_contents"):
        request = request_of(png_of("abc"), typed=True)
        getattr(request.inputs[0].contents, contents).append(1)
        yield request
    yield request_of(*[b"x"] * 10_000, typed=True)
    yield with_parameters(request_of(b"x"), **{f"p{index}": ("int64_param", index) for index in range(10_000)})
    yield request_of(b"x").SerializeToString() + b"\x2a\x00" * 400_000  # empty tensors, which would be gigabytes
    yield request_of(packed(b"x" * 100)[:3])
    blob = request_of(b"x")
    blob.raw_input_contents[0] = b"\xff\xff\xff\xff"
    yield blob


@pytest.mark.parametrize("index", range(len(list(broken_requests()))))
def test_what_does_not_add_up_is_the_clients_mistake(caller: Caller, index: int) -> None:
    error = caller.refused(list(broken_requests())[index])
    assert error.code() is Code.INVALID_ARGUMENT
    assert error.details()


def test_where_contents_belong_is_told(caller: Caller) -> None:
    request = request_of(typed=True, shape=[1])
    request.inputs[0].contents.fp32_contents.append(1.0)
    told = "inputs[0].contents: files are sent in bytes_contents, and pixels in raw_input_contents."
    assert caller.refused(request).details() == told


def test_a_client_that_leaves_in_the_moment_of_its_answer_leaves_no_traceback(
    caller: Caller, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_values: Any, **_names: Any) -> bytes:
        raise grpc.aio.InternalError("the call has ended")  # as the library does then

    monkeypatch.setattr("service.grpc.service.send", fail)
    assert caller.refused(request_of(png_of("abc"))).code() is Code.UNKNOWN
    assert not [record for record in caplog.records if record.exc_info]


def test_no_bytes_make_the_server_fail(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(20)
    seeds = [
        with_parameters(request_of(png_of("abc"), b"junk", typed=typed), timeout=("int64_param", 10**7)).SerializeToString()
        for typed in (False, True)
    ]
    for _ in range(300):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 3, 10))):
            at = chance.randrange(min(len(data), chance.choice((40, 4000))))
            chance.choice(
                (
                    lambda at=at, data=data: data.__setitem__(at, chance.randrange(256)),
                    lambda at=at, data=data: data.__delitem__(slice(at, at + chance.randrange(1, 9))),
                    lambda at=at, data=data: data.__setitem__(slice(at, at), chance.randbytes(chance.randrange(1, 9))),
                )
            )()
        method = chance.choice(("ModelInfer", "ModelInfer", "ModelInfer", "ModelReady", "ModelMetadata"))
        error = caller.start(method, bytes(data)).exception()
        assert error is None or error.code() in OURS, (error, bytes(data))
        error = caller.start(method, chance.randbytes(chance.randrange(30))).exception()
        assert error is None or error.code() in OURS, error
    assert not [record for record in caplog.records if record.exc_info]


def test_no_message_at_all_and_one_too_many(caller: Caller) -> None:
    for method in ("ModelInfer", "ModelReady"):
        call = caller.channel.stream_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError, match="The call has no message") as caught:
            call(iter(()), timeout=PATIENCE_S)
        assert caught.value.code() is Code.INVALID_ARGUMENT
    call = caller.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
    assert call(iter([request_of(png_of("abc")).SerializeToString(), b"junk"]), timeout=PATIENCE_S)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_is_refused_packed_or_not(caller: Caller, compression: grpc.Compression) -> None:
    error = caller.refused(request_of(b"\0" * 2 * MAX_BODY_BYTES), compression=compression)
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    assert caller.infer(request_of(png_of("abc")), compression=compression)


def test_what_would_be_headers_are_trailing_metadata(caller: Caller) -> None:
    call = caller.start("ModelInfer", request_of(png_of("abc")), metadata=[("x-request-id", "mine")])
    assert call.result()
    assert trailing(call)["x-request-id"] == "mine"
    assert re.fullmatch("decode;dur=.*total;dur=.*", trailing(call)["server-timing"])
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    error = caller.refused(b"junk", metadata=[("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")])
    assert trailing(error)["x-request-id"] == trace_id
    many = [(f"x-{index}", "1") for index in range(20)]
    error = caller.refused(request_of(png_of("abc")), metadata=many)
    assert (error.code(), "PARSEQ_MAX_HEADERS" in error.details()) == (Code.INVALID_ARGUMENT, True)


def test_requests_and_problems_are_counted_once_as_those_over_http_are() -> None:
    with grpc_serving() as caller:
        caller.infer(request_of(png_of("abc"), png_of("x1")))
        caller.refused(request_of(b"junk"))
        caller.refused(request_of(b"x", model_name="nosuch"))
        caller.call("ServerLive")
        for status, n in (("200", 1), ("422", 1), ("404", 1)):
            assert caller.metric(f'parseq_request_duration_seconds_count{{status="{status}"}}') == n
        assert caller.metric('parseq_problems_total{problem="unreadable-image"}') == 1
        assert caller.metric('parseq_problems_total{problem="not-found"}') == 1
        assert caller.metric('parseq_crops_total{model="toy",outcome="done"}') == 2
        assert caller.metric("parseq_requests_in_flight") == 0
        assert caller.metric("parseq_body_bytes") == 0


def test_who_has_no_key_learns_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with grpc_serving(api_keys_file=keys) as caller:
        for method in ("ModelInfer", "ModelReady", "ModelMetadata", "ServerMetadata", "RepositoryIndex", "RepositoryModelLoad"):
            for metadata in ((), (("authorization", "Bearer wrong-wrong-wrong"),), (("x-api-key", "wrong"),)):
                error = caller.refused(b"", method, metadata=metadata)
                assert error.code() is Code.UNAUTHENTICATED
                assert trailing(error)["www-authenticate"] == "Bearer"
        for metadata in ((("authorization", f"Bearer {KEY}"),), (("x-api-key", KEY),)):
            assert caller.infer(request_of(png_of("abc")), metadata=metadata)
        assert caller.call("ServerReady").ready
        assert caller.health() == 1


def wait_for(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


class Opened:
    """The gate is open while the server warms up, and at the end."""

    def __init__(self, session: FakeSession, **settings: Any) -> None:
        self._session = session
        runtime = toy_runtime(session, grpc_port=free_port(), max_batch_size=1, self_check_interval_s=0, **settings)
        self._serving = grpc_serving(runtime)

    def __enter__(self) -> Caller:
        caller = self._serving.__enter__()
        self._session.gate.clear()
        while self._session.entered.acquire(blocking=False):  # those of the warm-up
            pass
        return caller

    def __exit__(self, *error: Any) -> None:
        self._session.gate.set()
        self._serving.__exit__(*error)


def test_a_busy_server_says_when_to_come_again(session: FakeSession) -> None:
    with Opened(session, max_queue_items=1, max_crops_per_request=1) as caller:
        waiting = [caller.start("ModelInfer", request_of(png_of("abc"))) for _ in range(8)]
        session.wait_entered()
        wait_for(lambda: sum(call.done() for call in waiting) >= 6)
        refused = [call for call in waiting if call.done()]
        for call in refused:
            assert call.code() is Code.RESOURCE_EXHAUSTED
            assert "Try again in" in call.details()
            assert int(trailing(call)["grpc-retry-pushback-ms"]) >= 1000
            assert trailing(call)["retry-pushback-ms"] == trailing(call)["grpc-retry-pushback-ms"]
        assert caller.metric('parseq_request_duration_seconds_count{status="429"}') == len(refused)
        session.gate.set()
        for call in set(waiting) - set(refused):
            assert call.result()


@pytest.mark.parametrize("way", ["timeout", "parameter", "header"])
def test_deadlines_hold_however_they_are_given(session: FakeSession, way: str) -> None:
    with Opened(session) as caller:
        held = caller.start("ModelInfer", request_of(png_of("abc")))
        session.wait_entered()
        request, options = request_of(png_of("abc")), {}
        if way == "timeout":
            options = {"timeout": 0.3}
        elif way == "header":
            options = {"metadata": [("x-request-timeout-ms", "300")]}
        else:
            with_parameters(request, timeout=("int64_param", 300_000))
        error = caller.refused(request, **options)
        assert error.code() is Code.DEADLINE_EXCEEDED
        wait_for(lambda: caller.metric('parseq_crops_total{model="toy",outcome="expired"}') == 1)
        wait_for(lambda: caller.metric('parseq_request_duration_seconds_count{status="504"}') == 1)
        session.gate.set()
        assert held.result()


def test_a_call_that_is_cancelled_cancels_its_crops(session: FakeSession) -> None:
    with Opened(session) as caller:
        held = caller.start("ModelInfer", request_of(png_of("abc")))
        session.wait_entered()
        call = caller.start("ModelInfer", request_of(png_of("x1"), png_of("x2")))
        wait_for(lambda: caller.metric('parseq_crops_admitted_total{model="toy"}') == 3)
        call.cancel()
        wait_for(lambda: caller.metric('parseq_crops_total{model="toy",outcome="cancelled"}') == 2)
        wait_for(lambda: caller.metric('parseq_request_duration_seconds_count{status="499"}') == 1)
        session.gate.set()
        assert held.result()
        assert caller.runtime is not None
        assert [model.n_requests for model in caller.runtime.models] == [0]


def test_clients_share_what_there_is_as_over_http(session: FakeSession, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n{KEY[::-1]}")
    limits = {"max_queue_items": 4, "max_crops_per_request": 4}
    with Opened(session, api_keys_file=keys, **limits) as caller:
        greedy = [("x-api-key", KEY)]
        waiting = [caller.start("ModelInfer", request_of(png_of("abc")), metadata=greedy) for _ in range(12)]
        session.wait_entered()
        wait_for(lambda: any(call.done() for call in waiting))
        modest = httpx.Client(base_url=caller.url, headers={"x-api-key": KEY[::-1]})
        answers: list[int] = []
        png = {"content-type": "image/png"}
        posting = threading.Thread(
            target=lambda: answers.append(modest.post("/v1/recognize", content=png_of("x1"), headers=png).status_code)
        )
        posting.start()
        wait_for(lambda: caller.metric('parseq_crops_admitted_total{model="toy"}') >= 6)
        session.gate.set()
        posting.join(PATIENCE_S)
        assert answers == [200]
        modest.close()


def test_a_server_that_warms_up_is_alive_and_not_available(session: FakeSession) -> None:
    session.gate.clear()
    runtime = toy_runtime(session, grpc_port=free_port())
    caller = Caller(f"127.0.0.1:{runtime.settings.grpc_port}", "")

    def look() -> None:
        error = caller.refused(request_of(png_of("abc")), wait_for_ready=True)
        assert (error.code(), "starting" in error.details()) == (Code.UNAVAILABLE, True)
        assert caller.call("ServerLive").live
        assert not caller.call("ServerReady").ready
        assert not caller.call("ModelReady", CLASSES["ModelReadyRequest"](name="toy")).ready
        assert caller.call("RepositoryIndex").models[0].state == "UNAVAILABLE"
        assert (caller.health(), caller.health("liveness")) == (2, 1)
        session.gate.set()

    with caller.channel, listening(runtime, look):
        assert caller.infer(request_of(png_of("abc")))


def test_a_message_that_does_not_come_is_given_up() -> None:
    with grpc_serving(receive_timeout_s=0.2) as caller:
        never = threading.Event()

        def nothing() -> Iterator[bytes]:
            never.wait(PATIENCE_S)
            yield b""

        for method in ("inference.GRPCInferenceService/ModelInfer", f"{HEALTH_SERVICE}/Check"):
            call = caller.channel.stream_unary(f"/{method}")
            with pytest.raises(grpc.RpcError, match="PARSEQ_RECEIVE_TIMEOUT_S") as caught:
                call(nothing(), timeout=PATIENCE_S)
            assert caught.value.code() is Code.DEADLINE_EXCEEDED
        never.set()
        assert caller.metric('parseq_request_duration_seconds_count{status="408"}') == 1


def test_many_calls_of_one_connection_at_once_are_read_or_told_why(caller: Caller) -> None:
    calls = [caller.start("ModelInfer", request_of(png_of("abc"))) for _ in range(900)]
    codes = {call.code() for call in calls}
    assert codes - {Code.RESOURCE_EXHAUSTED} == {Code.OK}
    assert caller.infer(request_of(png_of("abc")))


def test_connections_are_a_part_of_those_there_may_be() -> None:
    with grpc_serving(max_connections=12) as caller:  # 3 of them for gRPC
        assert caller.call("ServerLive").live
        channels = [grpc.insecure_channel(caller.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(5)]
        for channel in channels:
            ready = grpc.channel_ready_future(channel)
            try:
                ready.result(1)
            except grpc.FutureTimeoutError:
                break
        else:
            raise AssertionError("all were let in")
        assert caller.call("ServerLive").live
        for channel in channels:
            channel.close()
