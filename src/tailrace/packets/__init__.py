"""Packet sessions: a duplex exchange of packets over plain HTTP, which survives the network.

A session is two logs. The client's packets go to the inbox, and your hooks are called with them. What the hooks send
goes to the outbox, and the client reads it, resumes it and sees how it ends.
"""

from ..packet import PacketType, RequestFailed, SocketPacket
from .hooks import on_connect, on_disconnect, on_packet
from .inbox import PacketLimits
from .router import PacketsRouter, packets_router
from .session import ClientSession, SessionState, SessionStatistics

__all__ = [
    "ClientSession",
    "PacketLimits",
    "PacketType",
    "PacketsRouter",
    "RequestFailed",
    "SessionState",
    "SessionStatistics",
    "SocketPacket",
    "on_connect",
    "on_disconnect",
    "on_packet",
    "packets_router",
]
