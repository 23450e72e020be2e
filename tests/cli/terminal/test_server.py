from __future__ import annotations

import pytest

from tailrace.cli.terminal.server import NO_KEY, WRONG_KEY, Wording, code_of
from tailrace.cli.terminal.state import Message
from tailrace.client import Loss, NotAStream, StreamFailed, StreamLost, StreamRefused, Unreachable
from tailrace.errors import DecodeError

URL = "http://there"
GONE = StreamRefused(404, "session_not_found", "no session")
SESSION = "0123456789abcdef"


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (StreamFailed("model_error", "it broke"), "it broke (model_error)", "model_error"),
        (StreamFailed(None, None), "no reason given (no code)", "failed"),
        (StreamRefused(401, "unauthorized", "no"), NO_KEY, "unauthorized"),
        (StreamRefused(404, "stream_not_found", "no"), "the server no longer has this reply", "stream_not_found"),
        (StreamRefused(413, "message_too_long", "too long"), "too long", "message_too_long"),
        (StreamRefused(404, None, "Not Found"), "no chat server at http://there (status 404)", "refused"),
        (StreamRefused(404, "not_found", "no"), "no chat server at http://there (status 404)", "not_found"),
        (StreamRefused(404, "other", "no page"), "no page", "other"),
        (StreamRefused(418), "the server answered with status 418", "refused"),
        (NotAStream("text/html", "events"), "no chat server at http://there (it answers with text/html)", "failed"),
        (NotAStream("", "events"), "no chat server at http://there (it answers with no media type)", "failed"),
        (
            Unreachable(Loss("unsent", "no connection", "All [1]"), 2),
            "no response from the server: no connection",
            "unreachable",
        ),
        (
            Unreachable(Loss("unsent", "no connection in time"), 2),
            "no response from the server: no connection in time",
            "unreachable",
        ),
        (
            StreamLost(Loss("broken", "the connection failed", "x"), None, 9),
            "gave up after 9 failures: the connection failed",
            "unreachable",
        ),
        (
            StreamLost(Loss("unsent", "the certificate: self-signed"), note="so it is"),
            "the certificate: self-signed; so it is",
            "unreachable",
        ),
        (DecodeError("expected one, but got two"), "expected one, but got two", "failed"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str, code: str) -> None:
    assert (Wording(URL).sentence(error), code_of(error)) == (line, code)


def test_what_can_be_done_is_said_where_it_can_be() -> None:
    chat, script = Wording(URL), Wording(URL, in_chat=False)
    assert chat.sentence(GONE) == "this session does not exist: /new begins another, /sessions lists them"
    assert script.sentence(GONE) == "this session does not exist"
    full = StreamRefused(409, "session_full", "no")
    assert chat.sentence(full) == "this session is full: /reset clears it, /new begins another"
    assert script.sentence(full) == "this session is full"
    assert chat.goes_on(SESSION) == "/open 01234567 continues it"
    assert script.goes_on(SESSION) == "the server may still be generating it"


def test_a_key_is_asked_for_or_is_the_wrong_one() -> None:
    refused = StreamRefused(401, "unauthorized", "no")
    assert Wording(URL).sentence(refused) == NO_KEY
    assert Wording(URL, has_key=True).sentence(refused) == WRONG_KEY


def test_what_has_become_of_a_message() -> None:
    chat, script = Wording(URL), Wording(URL, in_chat=False)
    message = Message("hello", None)
    message.miss(Loss("unsent", "no connection", "x"), 9.0)
    assert chat.perhaps_sent(message) == script.perhaps_sent(message) == "your message was not sent"
    message.miss(Loss("broken", "the connection failed"), 9.0)
    assert chat.perhaps_sent(message) == "your message may have arrived: resending is safe"
    assert script.perhaps_sent(message) == "your message may have arrived"
