"""The chat server: sessions of many turns with a model, each reply a stream that survives the network."""

from .app import create_app
from .settings import ChatSettings

__all__ = ["ChatSettings", "create_app"]
