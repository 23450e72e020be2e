"""What a server says, as names and values to be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .formatting import duration, in_zone, moment

if TYPE_CHECKING:
    from ...client import Health, SessionDetails, Stats

Facts = list[tuple[str, str]]


def of_server(url: str, stats: Stats) -> Facts:
    return [
        ("Address", url),
        ("Model", stats.model),
        ("Framework", stats.framework),
        ("Uptime", duration(stats.uptime)),
        ("Requests", str(stats.requests.total)),
        ("Successful requests", str(stats.requests.successful)),
        ("Failed requests", str(stats.requests.failed)),
        ("Active sessions", "unknown" if stats.active_sessions is None else str(stats.active_sessions)),
        ("Active streams", str(stats.active_streams)),
        ("Sessions created", str(stats.sessions_created)),
        ("Chunks", str(stats.chunks)),
        ("Average response time", f"{stats.average_response_time:.2f} s"),
    ]


def of_health(health: Health) -> Facts:
    return [
        ("Status", health.status if health.reason is None else f"{health.status}: {health.reason}"),
        ("Active streams", str(health.active_streams)),
        ("Active connections", str(health.active_connections)),
        ("Database", health.database or "unknown"),
        ("Event loop lag", "unknown" if health.event_loop_lag is None else f"{1000 * health.event_loop_lag:.0f} ms"),
        ("Uptime", duration(health.uptime)),
    ]


def of_session(found: SessionDetails) -> Facts:
    """Of a session and its newest messages."""
    # The server counts a message and its reply together, also while that is being written.
    replies = found.message_count // 2
    until = _last_used(found)
    return [
        ("Session", found.session_id),
        ("Title", found.title or "–"),
        ("Model", found.model),
        ("Messages", str(found.message_count)),
        ("  yours", str(found.message_count - replies)),
        ("  replies", str(replies)),
        ("Duration", duration((until - in_zone(found.created)).total_seconds())),
        ("Created", moment(found.created)),
        ("Last used", moment(until)),
        ("State", "answering" if found.stream_id else "idle"),
    ]


def _last_used(found: SessionDetails) -> datetime:
    """When its last reply ended, which is now as long as it is being written; `updated` is when that began."""
    times = [in_zone(found.updated), *(in_zone(message.timestamp) for message in found.messages)]
    return max([*times, datetime.now(UTC)] if found.stream_id else times)
