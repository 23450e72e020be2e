"""What sessions keep together, and the share of each."""

from __future__ import annotations

from tailrace.log.memory import MemoryLog
from tailrace.packets.kept import Kept, Share
from tailrace.pulse import Pulse


async def test_a_share_that_was_closed_counts_no_more() -> None:
    kept, pulse, log, other = Kept(100), Pulse(60), MemoryLog("one"), MemoryLog("other")
    with Share(kept, pulse, log) as share, Share(kept, pulse, other):
        await log.append("x" * 78)
        assert share.has_room_for(20)
        assert not share.has_room_for(21)
        assert (kept.size, kept.shares, kept.full) == (80, 2, False)
        await other.append("x" * 18)
        share.beat()
    await log.append("too late")  # a packet that was on its way to a store
    share.beat()
    assert (kept.size, kept.shares) == (0, 0)
    assert not any(pulse._slots)
