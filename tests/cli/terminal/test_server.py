from __future__ import annotations

import pytest

from tailrace.cli.terminal.server import KEY, code_of, sentence
from tailrace.client import NotAStream, StreamFailed, StreamLost, StreamRefused, Unreachable


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (StreamFailed("model_error", "it broke"), "it broke (model_error)", "model_error"),
        (StreamFailed(None, None), "no reason was given (no code)", "failed"),
        (StreamRefused(401, "unauthorized", "no"), KEY, "unauthorized"),
        (StreamRefused(404, "stream_not_found", "no"), "the reply is not kept any more", "stream_not_found"),
        (StreamRefused(413, "message_too_long", "too long"), "too long", "message_too_long"),
        (StreamRefused(418), "the server answered with status 418", "refused"),
        (Unreachable("refused", 2), "the server gives no answer: refused", "unreachable"),
        (StreamLost("refused", None, 9), "the connection could not be made again: refused", "unreachable"),
        (NotAStream("text/html", "events"), "expected a stream (events), but got text/html", "failed"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(error: Exception, line: str, code: str) -> None:
    assert (sentence(error), code_of(error)) == (line, code)
