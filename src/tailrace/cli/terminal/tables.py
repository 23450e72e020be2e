"""Facts about a server and its sessions, laid out in columns that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING

from ..text import duration, in_zone, moment, safe_line, short

if TYPE_CHECKING:
    from ...client import Health, Session, SessionDetails, Stats

Facts = list[tuple[str, str]]

ROOM = 20
"""The least columns for a long value beside its name. With fewer columns, the value is below the name."""


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
    # A message and its reply count as soon as the reply begins.
    replies = found.message_count // 2
    return [
        ("Session", found.session_id),
        ("Title", found.title or "–"),
        ("Model", found.model),
        ("Messages", str(found.message_count)),
        ("  yours", str(found.message_count - replies)),
        ("  replies", str(replies)),
        ("Duration", _lasted(found)),
        ("Created", moment(found.created)),
        ("Last used", moment(_last_used(found))),
        ("State", "generating" if found.stream_id else "idle"),
    ]


def _last_used(found: Session) -> datetime:
    """Return when the last reply ended, or the current time during a reply."""
    return datetime.now(UTC) if found.stream_id else in_zone(found.updated)


def _lasted(found: Session) -> str:
    return duration((_last_used(found) - in_zone(found.created)).total_seconds())


def aligned(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield lines of two columns, names and values. A word that is longer than a line, such as an id, stays whole."""
    column = 4 + max(len(name) for name, _ in rows)
    for name, value in rows:
        label = f"  {name}".ljust(column)
        longest = max(map(len, value.split()), default=0)
        if column + len(value) <= width or width - column >= max(ROOM, longest):
            yield from _wrapped(value, width, label, " " * column) or [label.rstrip()]
        else:
            indent = " " * min(4, max(0, width - longest))
            yield label.rstrip()
            yield from _wrapped(value, width, indent, indent)


def _wrapped(value: str, width: int, first: str, others: str) -> list[str]:
    return wrap(
        value,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


TITLE = 16
"""The least columns for a title on its session's line. With fewer columns, a second line has the times."""


class Listing:
    """Lists sessions on a terminal with this many columns, and marks the current one."""

    def __init__(self, columns: int, current: str | None) -> None:
        self._current = current
        self._columns = columns
        self._is_wide = len(self._wide("", "", "", "", "", "")) + TITLE <= columns

    @property
    def heading(self) -> str:
        line = self._wide if self._is_wide else self._narrow
        return line("", "Session", "Messages", "Created", "Duration", "Title")

    def lines(self, session: Session) -> Iterator[str]:
        mark = "*" if session.session_id == self._current else ""
        name, messages = short(session.session_id), str(session.message_count)
        times = moment(session.created), _lasted(session)
        line = self._wide if self._is_wide else self._narrow
        room = self._columns - len(line(mark, name, messages, *times, ""))
        yield line(mark, name, messages, *times, _title(session, room))
        if not self._is_wide:
            yield f"    {times[0]}  {times[1]}"

    @staticmethod
    def _wide(mark: str, session: str, messages: str, created: str, lasted: str, title: str) -> str:
        return f"{mark:1} {session:8}  {messages:>8}  {created:16}  {lasted:12}  {title}"

    @staticmethod
    def _narrow(mark: str, session: str, messages: str, created: str, lasted: str, title: str) -> str:
        return f"{mark:1} {session:8}  {messages:>8}  {title}"


def _title(session: Session, columns: int) -> str:
    generating = " (generating)" if session.stream_id else ""
    return cut(safe_line(session.title) or "–", columns - len(generating)) + generating


def cut(text: str, columns: int) -> str:
    """Return as much of a text as fits, with an ellipsis if something is missing."""
    # Import it here, because rich is loaded together with the server.
    from rich.text import Text

    line = Text(text)
    line.truncate(max(1, columns), overflow="ellipsis")
    return line.plain
