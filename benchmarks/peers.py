"""Who is measured."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.downloads import with_download
from benchmarks.process import Command, Server, chat, chat_workers, nchan, nginx_files, nginx_modules, serve, uvicorn
from benchmarks.programs import chat_client, client, imports, in_node
from benchmarks.stored import stored


@dataclass(frozen=True)
class Peer:
    name: str
    label: str
    command: Command
    # nginx serves from a worker process, a child of the one started.
    worker: bool = False
    # Unless it is on one CPU, it may use all, that of the load client included.
    pinned: bool = True

    def serve(self, environment: Mapping[str, str] | None = None) -> AbstractContextManager[Server]:
        return serve(self.command, worker=self.worker, pinned=self.pinned, environment=environment)


def python_peer(name: str, label: str, module: str) -> Peer:
    return Peer(name, label, uvicorn(f"benchmarks.servers.{module}:app"))


def file_peer(name: str, label: str, command: Command, *, worker: bool = False) -> Peer:
    return Peer(name, label, with_download(command), worker=worker)


FASTAPI = python_peer("fastapi", "FastAPI's own", "fastapi_app")
SSE_STARLETTE = python_peer("sse-starlette", "sse-starlette", "sse_starlette_app")
LITESTAR = python_peer("litestar", "Litestar", "litestar_app")
BARE = python_peer("bare", "bare StreamingResponse", "bare_app")
NCHAN = Peer("nchan", "nchan (nginx, C)", nchan, worker=True)
TAILRACE = python_peer("tailrace", "tailrace, FastAPI route", "tailrace_app")
TAILRACE_ASGI = python_peer("tailrace-asgi", "tailrace, plain ASGI", "tailrace_asgi")
TAILRACE_REDIS = python_peer("tailrace-redis", "tailrace, streams in Redis", "tailrace_app")
# Two ends of one server. Its queue is long, because TCP waits for seconds after a connection that found it full.
FEEDS = uvicorn("benchmarks.servers.feeds_app:app", "--backlog", "8192")
WORKER_KILLED = Peer("tailrace-killed", "tailrace, worker killed", FEEDS)
TAILRACE_FEEDS = Peer("tailrace-feeds", "tailrace, streams in Redis", FEEDS)
WORKER_STOPPED = Peer("tailrace-stopped", "tailrace, worker told to stop", FEEDS)
SOCKETS = python_peer("sockets", "send_text in a loop", "sockets_app")
SOCKETIO = python_peer("socketio", "python-socketio", "socketio_app")
ROOMS = python_peer("tailrace-rooms", "tailrace, a room", "rooms_app")
ECHO = python_peer("echo", "WebSocket text echo", "echo_app")
ECHO_JSON = python_peer("echo-json", "WebSocket JSON echo", "echo_app")
# One server, and two ways to its sessions.
PACKETS = python_peer("tailrace-packets", "tailrace, POST and stream", "packets_app")
PACKETS_SOCKET = python_peer("tailrace-packets-socket", "tailrace, WebSocket", "packets_app")
BARE_CHAT = python_peer("bare-chat", "bare StreamingResponse", "bare_chat_app")
CHAT = Peer("tailrace-chat", "tailrace serve", chat)
ONE_WORKER = Peer("one-worker", "one worker, streams in memory", chat, pinned=False)
ONE_WORKER_REDIS = Peer("one-worker-redis", "one worker, streams in Redis", chat, pinned=False)
TWO_WORKERS = Peer("tailrace-two-workers", "two workers, streams in Redis", chat_workers, pinned=False)
# The same server at databases that differ in their size alone.
LONG_SESSIONS = Peer("tailrace-long-sessions", "tailrace serve", stored(chat, sessions=200, turns=20))
FEW_SESSIONS = Peer("few-sessions", "with 100 sessions", stored(chat, sessions=100, turns=1))
MANY_SESSIONS = Peer("tailrace-many-sessions", "with 100,000 sessions", stored(chat, sessions=100_000, turns=1))

# Programs that are clients.
TAILRACE_DECODER = Peer("tailrace-decoder", "tailrace", client("decoding", "tailrace-decoder"))
HTTPX_SSE_DECODER = Peer("httpx-sse-decoder", "httpx-sse", client("decoding", "httpx-sse-decoder"))
OPENAI_DECODER = Peer("openai-decoder", "OpenAI SDK", client("decoding", "openai-decoder"))
TAILRACE_JS_DECODER = Peer("tailrace-js-decoder", "tailrace.js", in_node("decoding", "tailrace-js-decoder"))
EVENTSOURCE_PARSER = Peer("eventsource-parser", "eventsource-parser", in_node("decoding", "eventsource-parser"))
TAILRACE_TAIL = Peer("tailrace-tail", "tailrace, tail()", client("reading", "tailrace-tail"))
HTTPX_SSE = Peer("httpx-sse", "httpx-sse", client("reading", "httpx-sse"))
OPENAI = Peer("openai", "OpenAI SDK", client("reading", "openai"))
TAILRACE_TERMINAL = Peer("tailrace-terminal", "tailrace chat", client("rendering", "tailrace-terminal"))
RICH_LIVE = Peer("rich-live", "rich, Live(Markdown)", client("rendering", "rich-live"))
RICH_LIVE_FOUR = Peer("rich-live-four", "rich, 4 times a second", client("rendering", "rich-live-four"))
# One server, and two pages for its replies.
PLAIN_PAGE = python_peer("plain-page", "textContent alone", "page_app")
CHAT_PAGE = python_peer("chat-page", "tailrace's chat page", "page_app")
TAILRACE_PROMPT = Peer("tailrace-prompt", "tailrace chat", chat_client)
IMPORTS = Peer("imports", "import of prompt_toolkit and rich", imports)

# Programs that are one end of a relay through Redis.
REDIS_PY = Peer("redis-py", "redis-py", client("relaying", "redis-py"))
REDIS_PY_EACH = Peer("redis-py-each", "redis-py, a message an event", client("relaying", "redis-py-each"))
BROADCASTER = Peer("broadcaster", "broadcaster", client("relaying", "broadcaster"))
SOCKETIO_REDIS = Peer("socketio-redis", "python-socketio's manager", client("relaying", "socketio-redis"))
RESUMABLE_STREAM = Peer("resumable-stream", "fastapi-resumable-stream", client("relaying", "resumable-stream"))
TAILRACE_BUS = Peer("tailrace-bus", "tailrace over Redis", client("relaying", "tailrace-bus"))
RELAYS = (REDIS_PY, REDIS_PY_EACH, BROADCASTER, SOCKETIO_REDIS, RESUMABLE_STREAM, TAILRACE_BUS)

# Who sends a file.
FILE_LOOP = file_peer("file-loop", "4 KB loop in threads", uvicorn("benchmarks.servers.file_apps:loop_app"))
STARLETTE_FILE = file_peer(
    "starlette-file", "Starlette's FileResponse", uvicorn("benchmarks.servers.file_apps:starlette_app")
)
NGINX = file_peer("nginx", "nginx (C, sendfile)", nginx_files, worker=True)
TAILRACE_FILE = file_peer("tailrace-file", "tailrace", uvicorn("benchmarks.servers.file_apps:tailrace_app"))


USING_REDIS = (
    *RELAYS,
    TAILRACE_REDIS,
    TAILRACE_FEEDS,
    WORKER_KILLED,
    WORKER_STOPPED,
    ONE_WORKER,
    ONE_WORKER_REDIS,
    TWO_WORKERS,
)


def missing(peer: Peer) -> str | None:
    """Why a peer cannot be measured here, if it cannot."""
    if peer is NCHAN and nginx_modules() is None:
        return "nginx with the nchan module is not installed"
    if peer in (CHAT_PAGE, PLAIN_PAGE) and shutil.which("chromium") is None:
        return "chromium is not installed"
    if peer in USING_REDIS and shutil.which("redis-server") is None:
        return "redis-server is not installed"
    if peer is NGINX and shutil.which("nginx") is None:
        return "nginx is not installed"
    return None
