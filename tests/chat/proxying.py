"""nginx before a server, as it is configured by default."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.nginx import running_nginx
from tests.serving import free_port

CONFIGURATION = """
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


@asynccontextmanager
async def behind_nginx(url: str, folder: Path) -> AsyncIterator[str]:
    """The address at which nginx passes on what is sent to `url`. It buffers responses, as it does by default."""
    port = free_port()
    async with running_nginx(CONFIGURATION.format(port=port, url=url), port, folder):
        yield f"http://127.0.0.1:{port}"
