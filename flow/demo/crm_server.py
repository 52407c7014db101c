"""A small CRM with the API of docs/crm-api.md and faults to order; for the demo and for tests."""

import contextlib
import hmac
import json
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import click
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flow.cli.errors import guarded
from flow.demo.crm_listening import Server, bound
from flow.demo.crm_store import CrmStore, Faults

CALLS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was let in."""

    key: str
    """Its Idempotency-Key, or ""."""
    items: list[dict[str, Any]]


class CrmServer:
    """A CRM on 127.0.0.1; `async with` starts and stops it. Every fault can be set while it runs.

    It applies an item once per id, however often it comes, and counts how often it came.
    """

    def __init__(self, *, token: str | None = None, port: int = 0, effects: Path | None = None) -> None:
        """Listen on *port* (0: a free one) and expect *token* (None: an invented one) in every call.

        Each applied item is written to the file *effects* as a line of JSON before it is answered, and what
        the file holds counts as applied already.
        """
        self.token = token or secrets.token_urlsafe(16)
        self.faults = Faults()
        self.store = CrmStore(effects)
        self.records = self.store.records
        """What the CRM holds, by item id."""
        self.effects = self.store.effects
        """How often each item id was applied; above 1 it was delivered again."""
        self.requests = 0
        """How many calls came, also those that were not let in."""
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.lookups: Counter[str] = Counter()
        """How often each campaign was asked for, by its name."""
        self._changed = anyio.Event()
        self._socket = bound(port)
        self.port: int = self._socket.getsockname()[1]
        self._server: Server | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._app = Starlette(
            routes=[
                Route("/contacts", self._upsert, methods=["POST"]),
                Route("/campaigns", self._campaign, methods=["GET"]),
                Route("/faults", self._set_faults, methods=["PUT"]),
                Route("/effects", self._show_effects, methods=["GET"]),
            ]
        )

    @property
    def url(self) -> str:
        """What to set as CRM_URL."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "CrmServer":
        self._tasks = await anyio.create_task_group().__aenter__()
        await self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            await self.refuse()
        self._socket.close()
        self.store.close()
        assert self._tasks is not None
        return await self._tasks.__aexit__(kind, error, traceback)

    async def listen(self) -> None:
        """Accept connections, on the same port as before."""
        assert self._tasks is not None, "use `async with`"
        config = uvicorn.Config(
            self._app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False
        )
        self._server = Server(config)
        self._tasks.start_soon(self._server.serve, [self._socket])
        await self._server.ready.wait()

    async def refuse(self) -> None:
        """Reset every connection and refuse new ones, until `listen`; the port stays ours."""
        if self._server is not None:
            self._server.stopping.set()
            await self._server.stopped.wait()
            self._server = None
            self._socket = bound(self.port)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until *true*() after some call; the caller sets the deadline."""
        while not true():
            await self._changed.wait()

    async def _upsert(self, request: Request) -> Response:
        self.requests += 1
        body = await request.body()
        refusal = await self._refusal(request, body.decode("utf-8", "replace"))
        if refusal is not None:
            return refusal
        try:
            items = msgspec.json.decode(body, type=list[dict[str, Any]])
            ids = [str(item["id"]) for item in items]
        except (msgspec.MsgspecError, KeyError):
            return JSONResponse({"error": "an array of objects with an id each is expected"}, 400)
        self.calls.append(Call(request.headers.get("Idempotency-Key", ""), items))
        faults = self.faults
        if faults.answer is not None:
            self._tell()
            return Response(faults.answer, media_type="application/json")
        results = [faults.result(one) for one in ids]
        self.store.apply([item for item, result in zip(items, results, strict=True) if fine(result)])
        self._tell()
        if faults.silent or faults.reset:
            await self._break_off(request)
        # Backwards on purpose: nobody may rely on the order.
        answer = [result for result in reversed(results) if result]
        answer += [{"id": one, "status": "invalid", "reason": "stray"} for one in faults.stray]
        if faults.drip:
            return DrippingResponse(answer, faults.drip, self._pause)
        return JSONResponse(answer)

    async def _campaign(self, request: Request) -> Response:
        refusal = await self._refusal(request, str(request.url.query))
        if refusal is not None:
            return refusal
        name = request.query_params.get("name", "")
        self.lookups[name] += 1
        self._tell()
        if name in self.faults.unknown_campaigns:
            return JSONResponse([])
        return JSONResponse([{"id": f"crm-{request.query_params.get('externalId') or name}"}])

    async def _set_faults(self, request: Request) -> Response:
        try:
            self.faults = msgspec.json.decode(await request.body(), type=Faults)
        except msgspec.MsgspecError as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(status_code=204)

    async def _show_effects(self, request: Request) -> Response:
        return JSONResponse(self.effects)

    async def _refusal(self, request: Request, said: str) -> Response | None:
        """Return the answer to a call that is not let in; it quotes what was *said*, as real ones do."""
        faults = self.faults
        if faults.delay:
            await self._pause(faults.delay)
        sent = request.headers.get("Authorization", "")
        quoted = {"error": f"cannot do this: {said}"}
        refusal = None
        if faults.outage:
            refusal = JSONResponse(quoted, 503)
        elif (status := faults.refusal(self.requests)) is not None:
            refusal = JSONResponse(quoted, status)
        elif faults.limited is not None:
            refusal = JSONResponse(quoted, 429, {"Retry-After": faults.limited})
        elif not hmac.compare_digest(sent.encode(), f"Bearer {self.token}".encode()):
            refusal = JSONResponse(quoted, 401)
        if refusal is not None:
            self._tell()
        return refusal

    async def _break_off(self, request: Request) -> None:
        """Reset the connection of *request*, at once or when the other side has given up."""
        if self.faults.silent:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return
        self.faults.reset -= 1
        for connection in list(self._server.server_state.connections) if self._server else []:
            if connection.transport.get_extra_info("peername") == tuple(request.client or ()):
                connection.transport.abort()
        await anyio.lowlevel.checkpoint()

    async def _pause(self, seconds: float) -> None:
        """Wait so many seconds, less when the server stops."""
        if self._server is not None:
            with anyio.move_on_after(seconds):
                await self._server.stopping.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def fine(result: dict[str, Any] | None) -> bool:
    """Tell whether the item of *result* is applied."""
    return result is not None and result["status"] == "ok"


class DrippingResponse(Response):
    """An answer that arrives one byte at a time."""

    def __init__(self, answer: object, seconds: float, pause: Callable[[float], Awaitable[None]]) -> None:
        super().__init__(json.dumps(answer), media_type="application/json")
        self._seconds = seconds
        self._pause = pause

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the body slowly."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for place in range(len(self.body)):
            await send(
                {"type": "http.response.body", "body": self.body[place : place + 1], "more_body": True}
            )
            await self._pause(self._seconds)
        await send({"type": "http.response.body", "body": b""})


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Defaults to a free one.")
@click.option("--effects", type=click.Path(path_type=Path), help="A file that gets a line per applied item.")
@click.option("--token", envvar="CRM_TOKEN", help="Defaults to an invented one, which is shown.")
def main(port: int, effects: Path | None, token: str | None) -> None:
    """Run the demonstration CRM until interrupted."""

    async def run() -> None:
        async with CrmServer(token=token, port=port, effects=effects) as crm:
            click.echo(f"CRM_URL={crm.url}")
            if token is None:
                click.echo(f"CRM_TOKEN={crm.token}")
            await anyio.sleep_forever()

    with contextlib.suppress(KeyboardInterrupt), guarded():
        anyio.run(run)


if __name__ == "__main__":
    main()
