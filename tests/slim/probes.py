"""Asks a gRPC port what tools ask everywhere: health and reflection, by the packages made for it.

usage: probes.py IP:PORT        prints one line of JSON
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

DATA_PLANE = "dataplane.proto.v1.DataPlaneService"
WAIT_S = 20


def health(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)
    except grpc.RpcError as error:
        return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def watched(channel):
    """The first answer of a watch, which stays open."""
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=WAIT_S)
    first = next(watch)
    watch.cancel()
    return health_pb2.HealthCheckResponse.ServingStatus.Name(first.status)


def reflected(channel, version):
    """Both versions of the service have the same messages; the package knows the older by name."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=DATA_PLANE),
    ]
    listed, file = call(iter(questions), timeout=WAIT_S)
    methods = []
    for raw in file.file_descriptor_response.file_descriptor_proto:
        for service in descriptor_pb2.FileDescriptorProto.FromString(raw).service:
            methods += [f"{service.name}/{method.name}" for method in service.method]
    return {
        "services": sorted(one.name for one in listed.list_services_response.service),
        "methods": methods,
    }


def main(address):
    with grpc.insecure_channel(address) as channel:
        asked = ("", DATA_PLANE, "no.such.Service")
        answers = {
            "health": {service: health(channel, service) for service in asked},
            "watched": watched(channel),
            "reflection": {version: reflected(channel, version) for version in ("v1", "v1alpha")},
        }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1])
