"""A real receiver of webhooks on 127.0.0.1, over TLS or not, that answers as it is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from flow.demo.crm_listening import Server, bound
from tests.nodes.rabbitmq_node import Certificate


@dataclass(frozen=True, slots=True)
class Post:
    """One request that arrived whole."""

    headers: dict[str, str]
    body: bytes
    path: str


class Receiver:
    """What arrived, and how the next request is answered."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.posts: list[Post] = []
        self.answer: Callable[[], Any] = lambda: Response(status_code=204)
        """Makes an ASGI application that answers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.posts.append(Post(dict(request.headers), body, request.url.path))
        await self.answer()(scope, receive, send)

    def says(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.answer = lambda: Response(content, status, headers)


@asynccontextmanager
async def receiving(certificate: Certificate | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver, over TLS if it has a *certificate*."""
    listening = bound(0)
    receiver = Receiver(listening.getsockname()[1])
    tls = (
        {}
        if certificate is None
        else {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key}
    )
    config = uvicorn.Config(
        receiver, http="h11", ws="none", lifespan="off", log_config=None, access_log=False, **tls
    )
    server = Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        await server.ready.wait()
        yield receiver
        server.stopping.set()
        await server.stopped.wait()
