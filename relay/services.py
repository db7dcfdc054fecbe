"""The calls that Python answers: gRPC health checking and server reflection.

Sources: https://github.com/grpc/grpc/blob/master/doc/health-checking.md and
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. The message classes come with
grpcio-health-checking and grpcio-reflection; they, and protobuf under them, are imported at the
first call, so that a relay nobody asks does not carry them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from relay import feeds
from relay.engine import CallEvent, CallReport

OK = 0
INVALID_ARGUMENT = 3
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
INTERNAL = 13
UNAVAILABLE = 14

HEALTH_SERVICE = "grpc.health.v1.Health"
HEALTH_CHECK = f"/{HEALTH_SERVICE}/Check"
HEALTH_WATCH = f"/{HEALTH_SERVICE}/Watch"
REFLECTION_V1 = "grpc.reflection.v1"
REFLECTION_V1ALPHA = "grpc.reflection.v1alpha"
REFLECTION_PATHS = tuple(
    f"/{package}.ServerReflection/ServerReflectionInfo" for package in (REFLECTION_V1, REFLECTION_V1ALPHA)
)
PATHS = [HEALTH_CHECK, HEALTH_WATCH, *REFLECTION_PATHS]

# The relay as a whole, and its one service of substance.
HEALTH_NAMES = ("", feeds.SERVICE)


class Answers(Protocol):
    """The part of the native engine that answers calls."""

    def answer(self, call: int, message: bytes | None, status: int | None = ..., text: str = ...) -> bool: ...


class CallError(Exception):
    """An answer that is a gRPC status rather than a message."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Services:
    """Dispatches calls to the handlers below, by path."""

    def __init__(self, engine: Answers) -> None:
        self._engine = engine
        self._open: dict[int, Callable[[bytes], None]] = {}
        self._watches: dict[int, str] = {}
        self._serving = False
        self._reflection: Reflection | None = None

    def set_serving(self, serving: bool) -> None:
        """Say whether the relay serves; those who watch are told of a change."""
        if serving == self._serving:
            return
        self._serving = serving
        for call, service in list(self._watches.items()):
            self._answer(call, self._health_message(service))

    def close(self) -> None:
        """End all calls, so that none holds up a shutdown; those who watch know by then."""
        for call in list(self._open):
            self._end(call, None, UNAVAILABLE, "the relay is shutting down")

    def on_call(self, report: CallReport) -> None:
        """The engine tells a step of a call."""
        if report.event is CallEvent.CANCELLED:
            self._forget(report.call)
        elif report.event is CallEvent.HALF_CLOSED:
            self._half_closed(report)
        else:
            handler = self._open.get(report.call)
            if handler is None:
                if not report.path:
                    return  # a further message of a call that has been answered
                handler = self._begin(report)
            try:
                handler(report.message)
            except CallError as error:
                self._end(report.call, None, error.status, error.text)

    def _begin(self, report: CallReport) -> Callable[[bytes], None]:
        """Choose the handler of a new call and keep it."""
        call = report.call
        handlers: dict[str, Callable[[int, bytes], None]] = {
            HEALTH_CHECK: self._check,
            HEALTH_WATCH: self._watch,
            **dict.fromkeys(REFLECTION_PATHS, self._reflect),
        }
        handler = handlers[report.path]
        self._open[call] = lambda message: handler(call, message)
        return self._open[call]

    def _half_closed(self, report: CallReport) -> None:
        call = report.call
        if call in self._watches:
            return  # a watch goes on until its client leaves
        if call in self._open or report.path in REFLECTION_PATHS:
            self._end(call, None, OK, "")
        elif report.path:
            self._end(call, None, INTERNAL, "the request has no message")

    # --- health -----------------------------------------------------------------------

    def _check(self, call: int, message: bytes) -> None:
        service = _health_request(message)
        if service not in HEALTH_NAMES:
            raise CallError(NOT_FOUND, f"unknown service {service!r}")
        self._end(call, self._health_message(service), OK, "")

    def _watch(self, call: int, message: bytes) -> None:
        if call in self._watches:
            raise CallError(INVALID_ARGUMENT, "Watch takes one request message")
        self._watches[call] = service = _health_request(message)
        self._answer(call, self._health_message(service))

    def _health_message(self, service: str) -> bytes:
        from grpc_health.v1 import health_pb2

        response = health_pb2.HealthCheckResponse
        if service not in HEALTH_NAMES:
            return response(status=response.SERVICE_UNKNOWN).SerializeToString()
        if self._serving:
            return response(status=response.SERVING).SerializeToString()
        return response(status=response.NOT_SERVING).SerializeToString()

    # --- reflection -------------------------------------------------------------------

    def _reflect(self, call: int, message: bytes) -> None:
        if self._reflection is None:
            self._reflection = Reflection()
        self._answer(call, self._reflection.answer(message))

    # --- answers ----------------------------------------------------------------------

    def _answer(self, call: int, message: bytes) -> None:
        if not self._tell(call, message):
            # Over, or its client does not read what it asked for: end it, if it is still there.
            self._end(call, None, RESOURCE_EXHAUSTED, "too many answers are waiting to be read")

    def _end(self, call: int, message: bytes | None, status: int, text: str) -> None:
        self._forget(call)
        self._tell(call, message, status, text)

    def _tell(self, call: int, message: bytes | None, status: int | None = None, text: str = "") -> bool:
        """Whether the engine took the answer; one that there is no memory for its client waits for in vain."""
        try:
            return self._engine.answer(call, message, status, text)
        except MemoryError:
            return False

    def _forget(self, call: int) -> None:
        self._open.pop(call, None)
        self._watches.pop(call, None)


def _health_request(message: bytes) -> str:
    from google.protobuf.message import DecodeError
    from grpc_health.v1 import health_pb2

    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError:
        raise CallError(INVALID_ARGUMENT, "not a HealthCheckRequest") from None


class Reflection:
    """Answers reflection requests from the descriptors of the relay's own services.

    The messages of v1 and v1alpha are alike on the wire, so one pair of classes serves both.
    """

    def __init__(self) -> None:
        from google.protobuf import descriptor_pool
        from grpc_health.v1 import health_pb2
        from grpc_reflection.v1alpha import reflection_pb2

        from relay import kubearmor_pb2

        self._messages: Any = reflection_pb2
        self._pool: Any = descriptor_pool.DescriptorPool()
        files: list[Any] = [kubearmor_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
        for file in files:
            self._pool.AddSerializedFile(file.serialized_pb)
        self._pool.AddSerializedFile(_reflection_v1(reflection_pb2.DESCRIPTOR.serialized_pb))
        self._services = sorted(
            [feeds.SERVICE, HEALTH_SERVICE]
            + [f"{package}.ServerReflection" for package in (REFLECTION_V1, REFLECTION_V1ALPHA)]
        )

    def answer(self, message: bytes) -> bytes:
        """The response to one request, both serialized.

        Raises:
            CallError: the request is malformed, or asks for nothing known.
        """
        from google.protobuf.message import DecodeError

        try:
            request = self._messages.ServerReflectionRequest.FromString(message)
        except DecodeError:
            raise CallError(INVALID_ARGUMENT, "not a ServerReflectionRequest") from None
        response = self._messages.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        if kind is None:
            raise CallError(INVALID_ARGUMENT, "the request asks for nothing")
        try:
            self._fill(response, kind, request)
        except KeyError:
            response.error_response.error_code = NOT_FOUND
            response.error_response.error_message = "not found"
        return bytes(response.SerializeToString())

    def _fill(self, response: Any, kind: str, request: Any) -> None:
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self.add_files(response, self._pool.FindFileByName(request.file_by_filename))
        elif kind == "file_containing_symbol":
            symbol = request.file_containing_symbol
            self.add_files(response, self._pool.FindFileContainingSymbol(symbol))
        else:  # no message of these services has extensions
            if kind == "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                self._pool.FindMessageTypeByName(name)
                response.all_extension_numbers_response.base_type_name = name
            else:
                raise KeyError(kind)

    def add_files(self, response: Any, file: Any) -> None:
        """The file and all that it depends on, each once, dependencies behind."""
        waiting, seen = [file], {file.name}
        while waiting:
            current = waiting.pop(0)
            response.file_descriptor_response.file_descriptor_proto.append(current.serialized_pb)
            for needed in current.dependencies:
                if needed.name not in seen:
                    seen.add(needed.name)
                    waiting.append(needed)


def _reflection_v1(v1alpha: bytes) -> bytes:
    """The descriptor of reflection v1, which grpcio-reflection lacks, made from v1alpha's.

    The two files differ in nothing but the package's name.
    """
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto.FromString(v1alpha)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = REFLECTION_V1
    old, new = f".{REFLECTION_V1ALPHA}.", f".{REFLECTION_V1}."
    for message in file.message_type:
        for member in message.field:
            if member.type_name:  # setting it, even to "", says that the field is a message
                member.type_name = member.type_name.replace(old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    return file.SerializeToString()
