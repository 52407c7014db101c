"""The endpoint ends, whatever its application and its clients do."""

from contextlib import suppress
from typing import Any

import anyio
import pytest

from flow.endpoint import Endpoint

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HANG = 30.0  # seconds: what has not ended by then does not end


@pytest.mark.parametrize("begun", [False, True], ids=["without an answer", "within an answer"])
async def test_it_ends_although_its_application_never_does(begun: bool) -> None:
    asked, ended = anyio.Event(), anyio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            if begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            asked.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.fail_after(HANG):
        async with Endpoint(endless, "127.0.0.1", 0, options="-", extra="serve") as endpoint:
            host, _, port = endpoint.address.removeprefix("http://").rpartition(":")
            client = await anyio.connect_tcp(host, int(port))
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
        await ended.wait()
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await client.receive()
    await client.aclose()
