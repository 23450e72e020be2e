"""WebSockets of Starlette, to which each event is sent in a loop, as FastAPI's chat example does."""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.servers.reading import Reading

app = FastAPI()
sockets: list[WebSocket] = []


@app.websocket("/socket")
async def follow(socket: WebSocket) -> None:
    await socket.accept()
    sockets.append(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        sockets.remove(socket)


@app.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    text = reading.model_dump_json()
    for socket in tuple(sockets):
        await socket.send_text(text)
