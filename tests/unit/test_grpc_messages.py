"""Messages of gRPC: what they are on the wire, and what is told of them without parsing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as published

from service.errors import Problem
from service.grpc.messages import CLASSES, message_classes
from service.grpc.outline import FIELDS_PER_IMAGE, MAX_FIELDS, Parser
from tests.grpc_calls import request_of, with_outputs, with_parameters

MOST = 8
INFER = CLASSES["ModelInferRequest"]
PARSER = Parser(INFER, MOST)
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex")


def fields_of(descriptor: Any) -> dict[int, tuple[Any, ...]]:
    """Of a message, whatever those that it holds are called."""
    return {
        field.number: (
            field.name,
            field.type,
            field.is_repeated,
            field.containing_oneof.name if field.containing_oneof else None,
            fields_of(field.message_type) if field.message_type else None,
        )
        for field in descriptor.fields
    }


@pytest.mark.parametrize("name", [f"{method}{side}" for method in METHODS for side in ("Request", "Response")])
def test_messages_are_those_that_a_client_was_generated_from(name: str) -> None:
    assert fields_of(CLASSES[name].DESCRIPTOR) == fields_of(getattr(published, name).DESCRIPTOR)


def test_a_description_that_is_none_is_not_taken() -> None:
    with pytest.raises(ValueError, match="no field: int64 seven"):
        message_classes("test", "Message: int64 seven")


def tag(number: int, wire_type: int) -> bytes:
    return bytes((number << 3 | wire_type,))


def test_what_a_client_sends_is_parsed() -> None:
    request = with_outputs(with_parameters(request_of(*[b"x" * 300] * MOST, typed=True), a=("bool_param", True)), "text")
    assert PARSER.parse(request.SerializeToString()) == request
    assert PARSER.parse(b"") == INFER()


@pytest.mark.parametrize(
    "data",
    [
        tag(5, 2) + b"\x00",  # an empty tensor
        tag(4, 2) + b"\x00",
        tag(7, 2) + b"\x00",
        tag(9, 0) + b"\x01",  # a field that is not known
        tag(5, 2) + b"\x02" + tag(3, 0) + b"\x01",  # a tensor with a number in its shape
    ],
)
def test_far_more_fields_than_images_need_are_refused(data: bytes) -> None:
    PARSER.parse(data * (FIELDS_PER_IMAGE * MOST))
    with pytest.raises(Problem, match="far more fields than 8 images need") as caught:
        PARSER.parse(data * (MAX_FIELDS + FIELDS_PER_IMAGE * MOST + 1))
    assert caught.value.kind.slug == "too-many-crops"


@pytest.mark.parametrize("contents", ["int_contents", "uint64_contents", "bool_contents", "fp64_contents"])
def test_packed_numbers_count_each(contents: str) -> None:
    request = request_of(typed=True)
    getattr(request.inputs[0].contents, contents).extend([1] * 10)
    PARSER.parse(request.SerializeToString())
    getattr(request.inputs[0].contents, contents).extend([1] * 2000)
    with pytest.raises(Problem, match="Pixels are sent in raw_input_contents"):
        PARSER.parse(request.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\xff" * 11,
        tag(5, 2),
        tag(5, 2) + b"\x05abc",  # it says five bytes, and three are there
        tag(5, 2) + b"\x01" + tag(1, 2),
        tag(5, 2) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        tag(9, 1) + b"1234567",
        tag(9, 5) + b"123",
        tag(9, 3) + tag(9, 4),  # a group, which version 3 has not
        tag(1, 2) + b"\x01\xff",  # no UTF-8
        tag(0, 0) + b"\x01",
    ],
)
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    with pytest.raises(Problem, match=r"is no inference\.ModelInferRequest, or it is broken") as caught:
        PARSER.parse(data)
    assert caught.value.kind.slug == "malformed-request"


@given(st.binary(max_size=200))
@example(request_of(b"a", b"b").SerializeToString())
@example(request_of(b"a", typed=True).SerializeToString()[:-1])
def test_any_bytes_are_a_message_or_a_problem(data: bytes) -> None:
    with contextlib.suppress(Problem):
        assert PARSER.parse(data) == INFER.FromString(data)
