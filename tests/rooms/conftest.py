"""What holds for the tests of rooms."""

from __future__ import annotations

from tests.silence import silent_loop

__all__ = ["silent_loop"]
