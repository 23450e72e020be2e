"""The event that every peer sends."""

from pydantic import BaseModel


class Reading(BaseModel):
    id: int
    name: str
    value: float
