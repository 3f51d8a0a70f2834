"""The Open Inference Protocol over gRPC. Needs the extra `grpc`; nothing else imports it before `PARSEQ_GRPC_PORT` is set.

Requests are those of `http.dialects.open_inference` in other clothes: the same parser reads their tensors, the same gates let
them in, and the same endpoint answers them. What is here is only how they arrive and leave.
"""
