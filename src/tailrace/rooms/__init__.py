"""Rooms: logs with many publishers, members who come and go, and a bounded history."""

from .limits import RoomLimits
from .manager import ConnectionManager
from .room import Room, RoomStatistics
from .router import RoomsRouter, rooms_router

__all__ = ["ConnectionManager", "Room", "RoomLimits", "RoomStatistics", "RoomsRouter", "rooms_router"]
