"""The packets to send and those that have arrived, without I/O."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from tailrace import DecodeError, Outcome
from tailrace.client import (
    ClientError,
    PacketType,
    RequestFailed,
    SessionEnded,
    SocketPacket,
    StreamRefused,
    TooManyUnread,
    Unreachable,
)
from tailrace.client.mail import MAX_BYTES, MAX_PACKETS, MAX_UNREAD, UNREAD_FRAMES, Incoming, Outgoing, Unsent
from tailrace.client.settings import Loss, Retry
from tailrace.client.transport import Close, Ended, Failed, Open, Opened, Read, Sleep
from tailrace.wire.base import Frame
from tests.client.scripted import head

LOST = Failed(Loss("broken", "the connection failed"))


def named(name: Any, payload: Any = None, **members: Any) -> SocketPacket[Any]:
    return SocketPacket(**{"packet_type": "DATA", "id": str(name), "payload": payload, **members})


# Packets to send


class Posts:
    """A server that answers each request with the next of its answers: a loss, or a status with a body."""

    def __init__(self, *answers: Failed | tuple[int, bytes]) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        self._waiting = ExitStack()
        self.outgoing = Outgoing(self.open, Retry(base=0.0, limit=2))

    def open(self, body: bytes, media_type: str) -> Open:
        self.types.append(media_type)
        return Open("POST", "http://x/stream/S", {}, body, 1.0, 1.0, 1.0)

    def add(self, *packets: SocketPacket[Any]) -> list[Unsent]:
        """Add packets whose senders wait until the end of the test."""
        return [self._waiting.enter_context(self.outgoing.adding(packet)) for packet in packets]

    def deliver(self, *, steps: int = 1_000) -> None:
        """Run a delivery for at most so many commands, then give it up, as a cancelled sender does."""
        flow = self.outgoing.deliver(None)
        reply: object = None
        body = b""
        for _ in range(steps):
            try:
                command = flow.send(reply)
            except StopIteration:
                return
            reply = None
            if isinstance(command, Open):
                self.bodies.append(command.content or b"")
                answer = self.answers.pop(0)
                reply = answer if isinstance(answer, Failed) else self._opened(*answer)
                body = b"" if isinstance(answer, Failed) else answer[1]
            elif isinstance(command, Read):
                reply, body = (body, b"") if body else (Ended(), b"")
            else:
                assert isinstance(command, Close | Sleep)

    def _opened(self, status: int, body: bytes) -> Opened:
        return head(status)

    @property
    def sent(self) -> list[list[str | None]]:
        """The ids of the packets in each request."""
        return [[SocketPacket.decode(line).id for line in body.splitlines()] for body in self.bodies]


ACCEPTED = 202, b'{"accepted":1}'


def error_of(unsent: Unsent) -> ClientError | None:
    assert unsent.is_settled
    try:
        unsent.check()
    except ClientError as error:
        return error
    return None


def test_a_packet_alone_is_json_and_several_are_lines() -> None:
    posts = Posts(ACCEPTED, ACCEPTED)
    with posts.outgoing.adding(named(1)) as one:
        posts.deliver()
    with posts.outgoing.adding(named(2)) as two, posts.outgoing.adding(named(3)) as three:
        posts.deliver()
    assert [error_of(each) for each in (one, two, three)] == [None] * 3
    assert posts.sent == [["1"], ["2", "3"]]
    assert posts.types == ["application/json", "application/x-ndjson"]


def test_a_request_has_bounds() -> None:
    posts = Posts(*[ACCEPTED] * 5)
    large = named("large", "x" * MAX_BYTES)
    many = posts.add(*map(named, range(MAX_PACKETS + 1)), large, large, named("last"))
    while not many[-1].is_settled:
        posts.deliver()
    assert [len(ids) for ids in posts.sent] == [MAX_PACKETS, 1, 1, 1, 1]
    assert posts.sent[2:] == [["large"], ["large"], ["last"]]


def test_after_a_loss_the_same_is_sent_again() -> None:
    posts = Posts(LOST, (503, b"{}"), ACCEPTED)
    (one,) = posts.add(named(1))
    posts.deliver()
    assert (posts.sent, error_of(one)) == ([["1"]] * 3, None)


def test_who_no_longer_waits_takes_only_his_packet_along() -> None:
    posts = Posts(LOST, ACCEPTED)
    with posts.outgoing.adding(named(1)):
        two, three = posts.add(named(2), named(3))
        posts.deliver(steps=1)
    posts.deliver()
    assert posts.sent == [["1", "2", "3"], ["2", "3"]]
    assert [error_of(two), error_of(three)] == [None, None]


def test_only_the_wrong_packet_is_refused() -> None:
    refused = 422, b'{"code":"bad_packet","detail":"no"}'
    posts = Posts(refused, ACCEPTED, refused, ACCEPTED)
    one, two, three = posts.add(named(1), named(2), named(3))
    posts.deliver()
    assert posts.sent == [["1", "2", "3"], ["1"], ["2"], ["3"]]
    assert [error_of(one), error_of(three)] == [None, None]
    assert isinstance(error_of(two), StreamRefused)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [([(503, b"{}")] * 3, Unreachable), ([(410, b"{}")], SessionEnded), ([(403, b"")], StreamRefused)],
)
def test_packets_sent_one_by_one_stop_at_an_error_that_is_not_about_one(
    answers: list[Any], kind: type[ClientError]
) -> None:
    posts = Posts((422, b"{}"), ACCEPTED, (413, b"{}"), *answers)
    first, large, *others = posts.add(*map(named, range(5)))
    posts.deliver()
    assert posts.sent == [["0", "1", "2", "3", "4"], ["0"], ["1"], *[["2"]] * len(answers)]
    assert (error_of(first), type(error_of(large))) == (None, StreamRefused)
    assert [type(error_of(unsent)) for unsent in others] == [kind] * 3


def test_the_packets_of_an_ended_session_are_all_refused() -> None:
    posts = Posts(
        (410, b'{"code":"session_ended","detail":"d","state":"cancelled","outcome_code":"died","message":"m"}')
    )
    for unsent in (both := posts.add(named(1), named(2))):
        assert not unsent.is_settled
    posts.deliver()
    for unsent in both:
        error = error_of(unsent)
        assert isinstance(error, SessionEnded)
        assert (error.state, error.code, error.message) == ("cancelled", "died", "m")


def test_an_end_without_a_message_is_told_once() -> None:
    body = b'{"code":"session_ended","detail":"expected a live session","state":"done","outcome_code":1,"message":null}'
    posts = Posts((410, body))
    (one,) = posts.add(named(1))
    posts.deliver()
    assert str(error_of(one)) == "the session has ended as done"


def test_the_body_of_an_end_may_be_lost() -> None:
    posts = Posts((410, b""))
    (one,) = posts.add(named(1))
    posts.deliver()
    error = error_of(one)
    assert isinstance(error, SessionEnded)
    assert (error.state, error.code) == (None, None)


@pytest.mark.parametrize(
    ("answers", "kind"), [([(404, b"{}")], StreamRefused), ([LOST] * 3, Unreachable), ([(429, b"{}")] * 3, Unreachable)]
)
def test_what_holds_for_all_is_told_to_all(answers: list[Any], kind: type[ClientError]) -> None:
    posts = Posts(*answers, ACCEPTED)
    both = posts.add(named(1), named(2))
    posts.deliver()
    assert [type(error_of(unsent)) for unsent in both] == [kind, kind]
    (third,) = posts.add(named(3))
    posts.deliver()
    assert (posts.sent[-1], error_of(third)) == (["3"], None)


# Packets that have arrived


def frame(number: int, payload: Any = None, kind: str = "DATA", **members: Any) -> Frame:
    return Frame({"packet_type": kind, "payload": payload, **members}, None, f"S.e.{number}")


@pytest.fixture
def incoming() -> Incoming[SocketPacket[Any]]:
    return Incoming(SocketPacket, "S.e.0", 10_000)


def pop(incoming: Incoming[Any]) -> Any:
    packet = incoming.pop()
    assert packet is not None
    return packet.payload


def answer(incoming: Incoming[Any], packet_id: str) -> Any:
    packet = incoming.answer_to(packet_id)
    assert packet is not None
    return packet.payload


def popped(incoming: Incoming[Any]) -> list[Any]:
    packets = []
    while (packet := incoming.pop()) is not None:
        packets.append(packet.payload)
    return packets


def test_a_reply_is_for_its_request_and_all_else_for_the_iteration(incoming: Incoming[Any]) -> None:
    with incoming.expecting("q"):
        assert incoming.answer_to("q") is None
        incoming.take([frame(1, "a"), frame(2, "answer", reply_to="q"), frame(3, "b"), frame(4, "more", reply_to="q")])
        assert answer(incoming, "q") == "answer"
        incoming.take([frame(5, "c", reply_to="q"), frame(6, "d", reply_to=["q"]), Frame("text", None, "S.e.7")])
    assert [pop(incoming) for _ in range(4)] == ["a", "b", "more", "c"]
    for _ in range(2):
        with pytest.raises(DecodeError, match="expected SocketPacket from the server, but in "):
            incoming.pop()
    assert incoming.pop() is None


def test_an_answer_that_nobody_took_is_for_the_iteration_at_its_place(incoming: Incoming[Any]) -> None:
    with incoming.expecting("q"):
        incoming.take([frame(1, "a"), frame(2, "late", reply_to="q"), frame(3, "b")])
        assert (incoming.before_unread, pop(incoming)) == ("S.e.0", "a")
        assert incoming.before_unread == "S.e.2"
    assert incoming.before_unread == "S.e.1"
    assert popped(incoming) == ["late", "b"]
    assert incoming.before_unread is None


def test_an_error_is_a_failed_request(incoming: Incoming[Any]) -> None:
    with incoming.expecting("q"):
        incoming.take([frame(1, {"code": "no"}, "ERROR", reply_to="q")])
        with pytest.raises(RequestFailed) as failed:
            incoming.answer_to("q")
    assert failed.value.packet.payload == {"code": "no"}
    assert popped(incoming) == []


def test_two_requests_need_two_ids(incoming: Incoming[Any]) -> None:
    with (
        incoming.expecting("q"),
        pytest.raises(ValueError, match="expected an id that no other request has now, but got 'q'"),
        incoming.expecting("q"),
    ):
        pass


def test_the_result_ends_the_iteration_even_if_it_is_an_answer(incoming: Incoming[Any]) -> None:
    assert incoming.result is None
    with incoming.expecting("q"), incoming.expecting("other"):
        incoming.take([frame(1, "a"), frame(2, "all", PacketType.RESULT, reply_to="q")])
        incoming.end(Outcome("done"))
        assert answer(incoming, "q") == "all"
        with pytest.raises(SessionEnded, match=r"^the session has ended as done$"):
            incoming.answer_to("other")
    assert popped(incoming) == ["a", "all"]
    assert incoming.result == SocketPacket(packet_type="RESULT", payload="all", reply_to="q")


def test_a_result_that_answers_nobody_is_there_once(incoming: Incoming[Any]) -> None:
    with incoming.expecting("q"):
        incoming.take([frame(1, "all", "RESULT", reply_to="q")])
    assert popped(incoming) == ["all"]


def test_an_end_without_a_result_is_an_error(incoming: Incoming[Any]) -> None:
    incoming.take([frame(1, "a")])
    incoming.end(Outcome("cancelled", "died", "the session died"))
    incoming.fail(ValueError("the first end counts"))
    assert incoming.is_over
    assert pop(incoming) == "a"
    for _ in range(2):
        with pytest.raises(SessionEnded, match=r"^the session has ended as cancelled \(died\): the session died$"):
            incoming.pop()


@pytest.mark.parametrize("outcome", [None, Outcome("cancelled", "stopped")])
def test_an_end_that_was_expected_is_none(incoming: Incoming[Any], outcome: Outcome | None) -> None:
    incoming.is_ended_here = outcome is not None
    incoming.end(outcome)
    assert popped(incoming) == []
    with incoming.expecting("q"), pytest.raises(SessionEnded, match="the session has ended"):
        incoming.answer_to("q")


def test_what_fails_fails_for_all(incoming: Incoming[Any]) -> None:
    incoming.fail(DecodeError("no"))
    with pytest.raises(DecodeError):
        incoming.pop()
    with incoming.expecting("q"), pytest.raises(DecodeError):
        incoming.answer_to("q")


def test_a_request_holds_so_many_packets_for_the_iteration_and_no_more(incoming: Incoming[Any]) -> None:
    with incoming.expecting("q"):
        incoming.take([frame(number) for number in range(MAX_UNREAD)])
        with pytest.raises(
            TooManyUnread, match=r"^expected an answer after fewer than 1024 packets, but 1024 packets"
        ) as unread:
            incoming.answer_to("q")
        assert unread.value.sent
        with pytest.raises(
            TooManyUnread, match=r"^expected fewer than 1024 packets before a request, but 1024"
        ) as unread:
            incoming.check_room(sent=False)
        assert not unread.value.sent
        pop(incoming)
        assert incoming.answer_to("q") is None
    assert len(popped(incoming)) == MAX_UNREAD - 1


def test_their_bytes_have_a_bound_too(incoming: Incoming[Any]) -> None:
    with incoming.expecting("q"):
        incoming.take([frame(number, "x" * 9_900) for number in range(UNREAD_FRAMES + 1)])
        size = UNREAD_FRAMES * 10_000
        with pytest.raises(
            TooManyUnread, match=rf"^expected an answer after fewer than {size} bytes, but 5 packets \("
        ):
            incoming.answer_to("q")
        pop(incoming)
        assert incoming.answer_to("q") is None


def test_payloads_have_types_but_not_those_of_errors_and_notices() -> None:
    incoming: Incoming[SocketPacket[int]] = Incoming(SocketPacket[int], None, 1_000)
    dropped = Frame({"count": 3}, "dropped", "S.e.2")
    incoming.take([frame(1, 5), dropped, frame(3, {"code": "x"}, "ERROR"), frame(4, "six"), frame(5, 7)])
    assert [pop(incoming) for _ in range(3)] == [5, {"count": 3}, {"code": "x"}]
    with pytest.raises(DecodeError, match=r"expected SocketPacket\[int\] from the server, but in payload: "):
        incoming.pop()
    assert popped(incoming) == [7]


def test_bytes_come_back(incoming: Incoming[Any]) -> None:
    incoming.take([frame(1, "AP8=", encoding="base64")])
    assert popped(incoming) == [b"\0\xff"]
