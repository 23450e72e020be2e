"""A real model behind the server: that a stop reaches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chat.api.talking import begun, chatting, text, within
from tests.chat.models.openai_upstream import OPENAI
from tests.chat.models.upstream import Hold, Upstream
from tests.serving import serving


async def test_a_stop_closes_the_connection_to_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream([OPENAI.begin, OPENAI.text("one "), Hold(), OPENAI.text("two"), OPENAI.ends["whole"]])
    async with serving(upstream, lifespan="off") as url:
        for name, value in OPENAI.environment(url).items():
            monkeypatch.setenv(name, value)
        async with chatting(tmp_path, spec=OPENAI.model) as chat:
            async with chat.saying("Hello") as left:
                [info, *_] = await begun(left)
            await within(upstream.held)
            await chat.health(active_connections=0)
            assert not upstream.left.is_set()  # who only reads may leave
            await chat.post(f"/chat/stream/{info['stream_id']}/stop")
            await within(upstream.left)
            assert (await chat.read(info["stream_id"]))[-1]["state"] == "stopped"
            upstream.release.set()
            assert text(await chat.say("Again", info["session_id"])) == "one two"
    assert OPENAI.sides(upstream.requests[1].body) == [("user", "Hello"), ("assistant", "one "), ("user", "Again")]
