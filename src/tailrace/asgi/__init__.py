"""The only code that receives and sends: a reader of a log as an HTTP or WebSocket response."""
