"""The chat server: sessions of many turns with a model. Each reply is a stream that survives the network."""

from .app import create_app
from .models.base import Message, Model, ModelError, Reasoning, Usage
from .settings import ChatSettings

__all__ = ["ChatSettings", "Message", "Model", "ModelError", "Reasoning", "Usage", "create_app"]
