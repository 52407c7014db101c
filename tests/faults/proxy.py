"""A line to the broker that knows AMQP: it breaks exactly where a test wants it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from struct import Struct

HEADER = 8  # bytes with which a client begins
HEAD = Struct(">BHI")  # of a frame: type, channel, size of the content
METHOD = 1
ACK = b"\x00\x3c\x00\x50"  # class basic, method ack


class Proxy:
    """Passes everything on, both ways, until the acknowledgement that it is told to break at."""

    def __init__(self, port: int) -> None:
        """Pass on to *port* of this machine."""
        self.port = 0
        self.acks = 0
        """How many acknowledgements have come from the client; one may be for many messages."""
        self.breaks_at = 0
        """The acknowledgement after which the connection breaks; 0: none."""
        self.swallows = False
        """Whether the broker never sees that acknowledgement."""
        self.breaks = 0
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        back, forth = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.create_task(pour(back, writer))
        with suppress(OSError, asyncio.IncompleteReadError):
            forth.write(await reader.readexactly(HEADER))
            while await self._pass(reader, forth):
                pass
        if not self.swallows:
            with suppress(OSError):
                await forth.drain()
                forth.write_eof()  # what was sent arrives
                await asyncio.wait({answers}, timeout=0.5)
        answers.cancel()
        for one in (writer, forth):
            one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> bool:
        """Pass one frame on; tell whether the connection lives."""
        head = await reader.readexactly(HEAD.size)
        kind, _, size = HEAD.unpack(head)
        rest = await reader.readexactly(size + 1)
        if kind == METHOD and rest.startswith(ACK):
            self.acks += 1
            if self.acks == self.breaks_at:
                self.breaks += 1
                if not self.swallows:
                    forth.write(head + rest)
                return False
        forth.write(head + rest)
        await forth.drain()
        return True


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends."""
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """Listen on a port of its own and pass on to *port*."""
    proxy = Proxy(port)
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
