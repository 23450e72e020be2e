"""HTTP and WebSocket responses that read a log. Only this package receives and sends ASGI messages."""
