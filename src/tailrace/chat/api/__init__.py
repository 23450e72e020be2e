"""The endpoints of the chat server."""
