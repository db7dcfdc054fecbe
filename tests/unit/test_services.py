"""relay.services: health and reflection, as their gRPC specifications say, without a socket."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from hypothesis import given
from hypothesis import strategies as st

from relay import kubearmor_pb2
from relay.engine import CallEvent, CallReport
from relay.services import HEALTH_CHECK, HEALTH_WATCH, PATHS, REFLECTION_PATHS, Reflection, Services

OK, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 3, 5, 8, 13, 14
REFLECTION_V1, REFLECTION_V1ALPHA = REFLECTION_PATHS
CALL = 7


@dataclass
class Answers:
    """Takes what the services answer; refuses when `full`."""

    sent: list[tuple[int, bytes | None, int | None, str]] = field(default_factory=list)
    full: bool = False
    starved: bool = False

    def answer(self, call: int, message: bytes | None, status: int | None = None, text: str = "") -> bool:
        if self.starved:
            raise MemoryError("no memory for a command")
        if self.full and status is None:
            return False
        self.sent.append((call, message, status, text))
        return True

    def take(self) -> list[tuple[int, bytes | None, int | None, str]]:
        sent, self.sent = self.sent, []
        return sent


class Client:
    """The reports of calls, as the engine makes them."""

    def __init__(self, serving: bool = True) -> None:
        self.answers = Answers()
        self.services = Services(self.answers)
        self.services.set_serving(serving)
        self._begun: set[int] = set()

    def send(self, path: str, message: bytes, call: int = CALL) -> None:
        given = "" if call in self._begun else path
        self._begun.add(call)
        self.services.on_call(CallReport(call, CallEvent.MESSAGE, given, message))

    def half_close(self, path: str = "", call: int = CALL) -> None:
        self.services.on_call(CallReport(call, CallEvent.HALF_CLOSED, path, b""))

    def cancel(self, call: int = CALL) -> None:
        self.services.on_call(CallReport(call, CallEvent.CANCELLED, "", b""))


def request(service: str = "") -> bytes:
    return HealthCheckRequest(service=service).SerializeToString()


def statuses(answers: list[Any]) -> list[str]:
    enum = HealthCheckResponse.ServingStatus
    return [enum.Name(HealthCheckResponse.FromString(message).status) for _, message, _, _ in answers if message]


# --- health -------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "feeder.LogService"])
@pytest.mark.parametrize(("serving", "status"), [(True, "SERVING"), (False, "NOT_SERVING")])
def test_check_tells_the_state_and_ends_the_call(service: str, serving: bool, status: str) -> None:
    client = Client(serving)
    client.send(HEALTH_CHECK, request(service))
    client.half_close()
    answers = client.answers.take()
    assert (len(answers), answers[0][0], answers[0][2]) == (1, CALL, OK)
    if serving:
        assert statuses(answers) == [status]
    else:
        assert HealthCheckResponse.FromString(answers[0][1] or b"").status == HealthCheckResponse.NOT_SERVING


def test_check_of_an_unknown_service_is_not_found() -> None:
    client = Client()
    client.send(HEALTH_CHECK, request("other.Service"))
    assert client.answers.take() == [(CALL, None, NOT_FOUND, "unknown service 'other.Service'")]


def test_check_of_a_malformed_request_is_refused() -> None:
    client = Client()
    client.send(HEALTH_CHECK, b"\x0a\x05ab")
    assert client.answers.take() == [(CALL, None, INVALID_ARGUMENT, "not a HealthCheckRequest")]


def test_check_without_a_message_is_refused() -> None:
    client = Client()
    client.half_close(HEALTH_CHECK)
    assert client.answers.take() == [(CALL, None, INTERNAL, "the request has no message")]


def test_watch_tells_the_state_and_each_change_of_it() -> None:
    client = Client(serving=True)
    client.send(HEALTH_WATCH, request())
    client.half_close()
    client.services.set_serving(True)  # no change: nothing is said
    client.services.set_serving(False)
    client.services.set_serving(True)
    answers = client.answers.take()
    assert statuses(answers) == ["SERVING", "NOT_SERVING", "SERVING"]
    assert {status for _, _, status, _ in answers} == {None}


def test_watch_of_an_unknown_service_stays_open() -> None:
    client = Client()
    client.send(HEALTH_WATCH, request("other.Service"))
    assert statuses(client.answers.take()) == ["SERVICE_UNKNOWN"]


def test_a_watch_that_was_cancelled_is_told_nothing() -> None:
    client = Client()
    client.send(HEALTH_WATCH, request())
    client.answers.take()
    client.cancel()
    client.services.set_serving(False)
    assert client.answers.take() == []


def test_a_second_request_on_a_watch_is_refused() -> None:
    client = Client()
    client.send(HEALTH_WATCH, request())
    client.send(HEALTH_WATCH, request())
    assert client.answers.take()[1:] == [(CALL, None, INVALID_ARGUMENT, "Watch takes one request message")]


def test_a_watch_that_does_not_read_is_ended() -> None:
    client = Client()
    client.send(HEALTH_WATCH, request())
    client.answers.take()
    client.answers.full = True
    client.services.set_serving(False)
    client.services.set_serving(True)
    assert client.answers.take() == [(CALL, None, RESOURCE_EXHAUSTED, "too many answers are waiting to be read")]


def test_without_memory_for_an_answer_the_next_call_is_answered() -> None:
    client = Client()
    client.answers.starved = True
    client.send(HEALTH_CHECK, request(), call=1)
    client.send(HEALTH_WATCH, request(), call=2)
    client.answers.starved = False
    client.send(HEALTH_CHECK, request(), call=3)
    ((call, _, status, _),) = client.answers.take()
    assert (call, status) == (3, OK)


def test_at_the_end_watches_are_told_and_every_call_is_ended() -> None:
    client = Client()
    client.send(HEALTH_WATCH, request(), call=1)
    client.send(HEALTH_CHECK, request(), call=2)
    ask(client, call=3, list_services="")
    client.answers.take()
    client.services.set_serving(False)
    client.services.close()
    told, *ends = client.answers.take()
    assert told[0] == 1
    assert ends == [(call, None, UNAVAILABLE, "the relay is shutting down") for call in (1, 3)]
    client.services.close()
    assert client.answers.take() == []


# --- reflection ---------------------------------------------------------------------------


def ask(client: Client, path: str = REFLECTION_V1, call: int = CALL, **wanted: Any) -> ServerReflectionResponse:
    client.send(path, ServerReflectionRequest(host="h", **wanted).SerializeToString(), call)
    *_, (_, message, status, _) = client.answers.take()
    assert message is not None
    assert status is None
    response = ServerReflectionResponse.FromString(message)
    assert response.valid_host == response.original_request.host == "h"
    return response


def files(response: ServerReflectionResponse) -> list[descriptor_pb2.FileDescriptorProto]:
    return [
        descriptor_pb2.FileDescriptorProto.FromString(file)
        for file in response.file_descriptor_response.file_descriptor_proto
    ]


@pytest.mark.parametrize("path", REFLECTION_PATHS)
def test_reflection_lists_all_services(path: str) -> None:
    response = ask(Client(), path, list_services="")
    assert [service.name for service in response.list_services_response.service] == [
        "feeder.LogService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


def test_every_listed_service_can_be_described_with_all_it_needs() -> None:
    client = Client()
    services = ask(client, list_services="").list_services_response.service
    for service in services:
        described = files(ask(client, file_containing_symbol=service.name))
        pool = descriptor_pool.DescriptorPool()
        for file in reversed(described):  # what a file needs stands behind it
            pool.Add(file)
        assert pool.FindServiceByName(service.name).methods


def test_a_file_is_found_by_its_name() -> None:
    name = kubearmor_pb2.DESCRIPTOR.name
    (file,) = files(ask(Client(), file_by_filename=name))
    assert file.SerializeToString() == kubearmor_pb2.DESCRIPTOR.serialized_pb


def test_a_file_comes_once_with_all_that_it_imports() -> None:
    imports = {"top": ["left", "right"], "left": ["base"], "right": ["base"], "base": []}
    pool = descriptor_pool.DescriptorPool()
    for name in ("base", "left", "right", "top"):
        pool.Add(descriptor_pb2.FileDescriptorProto(name=name, dependency=imports[name]))
    response = ServerReflectionResponse()
    Reflection().add_files(response, pool.FindFileByName("top"))
    assert [file.name for file in files(response)] == ["top", "left", "right", "base"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"file_by_filename": "other.proto"},
        {"file_containing_symbol": "other.Symbol"},
        {"file_containing_extension": {"containing_type": "feeder.Log", "extension_number": 5}},
        {"all_extension_numbers_of_type": "other.Type"},
    ],
)
def test_what_is_unknown_is_answered_with_not_found_and_the_call_goes_on(wanted: dict[str, Any]) -> None:
    client = Client()
    assert ask(client, **wanted).error_response.error_code == NOT_FOUND
    assert ask(client, list_services="").HasField("list_services_response")


def test_a_known_type_has_no_extensions() -> None:
    response = ask(Client(), all_extension_numbers_of_type="feeder.Log").all_extension_numbers_response
    assert (response.base_type_name, list(response.extension_number)) == ("feeder.Log", [])


def test_the_end_of_the_requests_ends_the_call() -> None:
    client = Client()
    ask(client, list_services="")
    client.half_close()
    assert client.answers.take() == [(CALL, None, OK, "")]


def test_no_requests_at_all_end_the_call() -> None:
    client = Client()
    client.half_close(REFLECTION_V1ALPHA)
    assert client.answers.take() == [(CALL, None, OK, "")]


@pytest.mark.parametrize(("message", "text"), [(b"\x0a\x05", "not a Server"), (b"", "asks for nothing")])
def test_a_malformed_request_ends_the_call(message: bytes, text: str) -> None:
    client = Client()
    client.send(REFLECTION_V1, message)
    ((_, _, status, said),) = client.answers.take()
    assert status == INVALID_ARGUMENT
    assert text in said


# --- anything -----------------------------------------------------------------------------


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(CallEvent), st.sampled_from(PATHS), st.binary(max_size=20)),
        max_size=20,
    )
)
def test_any_order_of_any_bytes_is_answered_within_grpc(steps: list[tuple[int, CallEvent, str, bytes]]) -> None:
    """Each call ends once at most, and nothing follows its end."""
    client = Client()
    paths: dict[int, str] = {}
    over: set[int] = set()
    for number, (slot, event, path, message) in enumerate(steps):
        call = slot
        if call in over:
            continue  # the engine reports nothing of a call that is over
        given_path = path if call not in paths else ""
        paths.setdefault(call, path)
        client.services.on_call(CallReport(call, event, given_path, message))
        if event is CallEvent.CANCELLED:
            over.add(call)
        for answered, _, status, _ in client.answers.take():
            assert answered not in over, number
            if status is not None:
                over.add(answered)


# What no client should do -------------------------------------------------------------------------


@pytest.mark.parametrize("path", [HEALTH_CHECK, *REFLECTION_PATHS])
def test_a_message_after_the_answer_is_passed_over(path: str) -> None:
    """It was under way when the call ended. (An error here would end the process.)"""
    client = Client()
    client.send(path, b"\xff" if path in REFLECTION_PATHS else b"")
    assert [status for _, _, status, _ in client.answers.take()] == [
        INVALID_ARGUMENT if path in REFLECTION_PATHS else OK
    ]
    client.send(path, b"")
    client.half_close()
    client.cancel()
    assert client.answers.take() == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "half_close", "cancel"]),
            st.sampled_from(PATHS),
            st.sampled_from([b"", b"\xff", b"\x0a\x01x", HealthCheckRequest(service="x").SerializeToString()])
            | st.binary(max_size=20),
        ),
        max_size=12,
    )
)
def test_whatever_a_client_says_is_answered_or_passed_over(steps: list[tuple[str, str, bytes]]) -> None:
    """In the order that the engine keeps to: the path comes with the first step, nothing after a cancellation."""
    client = Client()
    for call, path in enumerate(PATHS):
        begun = False
        for what, of, message in steps:
            if of != path:
                continue
            if what == "send":
                client.send(path, message, call)
            elif what == "half_close":
                client.half_close("" if begun else path, call)
                break
            elif begun:
                client.cancel(call)
                break
            begun = True
