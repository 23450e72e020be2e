"""The FastAPI side: routes whose functions yield, and what the OpenAPI document says of them."""
