"""Packet sessions whose hook echoes each packet, and ends the session after a REQUEST."""

from fastapi import FastAPI

from tailrace.packets import ClientSession, PacketType, SocketPacket, packets_router


async def echo(session: ClientSession, packet: SocketPacket) -> None:
    await session.send(SocketPacket(packet_type=PacketType.DATA, payload=packet.payload, reply_to=packet.id))
    if packet.packet_type == PacketType.REQUEST:
        await session.send(SocketPacket(packet_type=PacketType.RESULT))


app = FastAPI()
app.include_router(packets_router(on_packet=lambda: echo))
