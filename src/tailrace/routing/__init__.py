"""FastAPI routes whose functions yield, and their entries in the OpenAPI document."""
