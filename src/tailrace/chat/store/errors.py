"""What a store raises.

StoreError            the database cannot be reached, read or written: one line that names it, without its password
└── Conflict          it refuses a row, because of another one
SessionLimit          the owner has as many sessions as one may have
SessionNotFound       no such session of this owner
SessionFull           the session has as many turns as one may have
ValueError
└── BadToken          not the token of a page
"""

from __future__ import annotations


class StoreError(Exception):
    pass


class Conflict(StoreError):
    pass


class SessionLimit(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"expected fewer than {self.limit} sessions of one owner, but there are as many"


class SessionNotFound(Exception):
    def __init__(self, session_id: str) -> None:
        super().__init__(session_id)
        self.session_id = session_id

    def __str__(self) -> str:
        return f"expected a session of this owner, but got {self.session_id!r}"


class SessionFull(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"expected fewer than {self.limit} turns of one session, but there are as many"


class BadToken(ValueError):
    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return f"expected a token that a page gave, but got {self.token[:80]!r}"
