"""The messages that are spoken, described as their specifications have them, and made into classes when this is imported.

There is no generated code, which would need a compiler in step with the library. The classes live in a pool of their own:
others in this process may have messages of the same names, as Triton's client does.

Sources: the protocol's specification (github.com/kserve/open-inference-protocol, specification/protocol), of which
`uint64_param` and the `Repository...` messages are Triton's extensions (github.com/triton-inference-server/server,
docs/protocol); the health service of gRPC (github.com/grpc/grpc, doc/health-checking.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"

# Nested messages stand beside those they are used in: their names are no part of what is sent.
_INFERENCE: Final = """
ServerLiveRequest
ServerLiveResponse: bool live = 1
ServerReadyRequest
ServerReadyResponse: bool ready = 1
ModelReadyRequest: string name = 1; string version = 2
ModelReadyResponse: bool ready = 1
ServerMetadataRequest
ServerMetadataResponse: string name = 1; string version = 2; repeated string extensions = 3
ModelMetadataRequest: string name = 1; string version = 2
TensorMetadata: string name = 1; string datatype = 2; repeated int64 shape = 3
ModelMetadataResponse: string name = 1; repeated string versions = 2; string platform = 3; repeated TensorMetadata inputs = 4;
    repeated TensorMetadata outputs = 5
InferParameter: oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3;
    oneof double double_param = 4; oneof uint64 uint64_param = 5
InferTensorContents: repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3;
    repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6;
    repeated double fp64_contents = 7; repeated bytes bytes_contents = 8
InferInputTensor: string name = 1; string datatype = 2; repeated int64 shape = 3; map InferParameter parameters = 4;
    InferTensorContents contents = 5
InferRequestedOutputTensor: string name = 1; map InferParameter parameters = 2
ModelInferRequest: string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4;
    repeated InferInputTensor inputs = 5; repeated InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7
InferOutputTensor: string name = 1; string datatype = 2; repeated int64 shape = 3; map InferParameter parameters = 4;
    InferTensorContents contents = 5
ModelInferResponse: string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4;
    repeated InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6
RepositoryIndexRequest: string repository_name = 1; bool ready = 2
ModelIndex: string name = 1; string version = 2; string state = 3; string reason = 4
RepositoryIndexResponse: repeated ModelIndex models = 1
"""
_HEALTH: Final = """
HealthCheckRequest: string service = 1
HealthCheckResponse: int32 status = 1
"""
"""The status is an enumeration, which is sent as a number."""

_TYPES: Final = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}
_MESSAGE: Final = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_REPEATED: Final = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
_FIELD: Final = re.compile(r"(?:(?P<kind>repeated|oneof|map) )?(?P<type>\w+) (?P<name>\w+) = (?P<number>\d+)")


def message_classes(package: str, described: str) -> Mapping[str, Any]:
    """Message classes by name.

    Args:
        package: Of the messages.
        described: A line for each message, `Name: type field = number; ...`, which may go on in indented ones. Before a type
            may stand `repeated`, `oneof` (all of a message are one choice), or `map` (from texts).
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for line in described.strip().replace("\n    ", " ").splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for field in fields.split(";") if fields else ():
            _add_field(message, package, field.strip())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message.name}"))
        for message in file.message_type
    }


def _add_field(message: Any, package: str, described: str) -> None:
    match = _FIELD.fullmatch(described)
    if match is None:
        raise ValueError(f"no field: {described}")
    kind, type_ = match["kind"], match["type"]
    field = message.field.add(name=match["name"], number=int(match["number"]))
    field.label = _REPEATED if kind in ("repeated", "map") else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    field.type = _TYPES.get(type_, _MESSAGE)
    if kind == "map":
        entry = message.nested_type.add(name=f"{match['name'].title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, package, "string key = 1")
        _add_field(entry, package, f"{type_} value = 2")
        field.type_name = f".{package}.{message.name}.{entry.name}"
    elif field.type == _MESSAGE:
        field.type_name = f".{package}.{type_}"
    if kind == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name=CHOICE)
        field.oneof_index = 0


CHOICE: Final = "parameter_choice"
CLASSES: Final = {**message_classes("inference", _INFERENCE), **message_classes("grpc.health.v1", _HEALTH)}
