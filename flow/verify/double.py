"""A double of the target: an HTTP server that notes what it gets, and fails now and then on purpose."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from flow.codec import tried
from flow.errors import ConfigError
from flow.retries import describe
from flow.verify.history import Ending, History
from flow.verify.marks import Marks

HOST = "127.0.0.1"
LOOKS = ("GET", "HEAD", "OPTIONS")
"""Methods that deliver nothing."""
LATENCY = 0.01  # seconds before a call has effect: nobody gets to know of it in the turn in which it was made
SLOW = 0.3  # seconds
LARGEST = 16 << 20
GONE = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)

Answer: TypeAlias = Callable[[str, str, Any], Any]
"""Takes method, path with query, and the body read from JSON (None: it has none); returns what to answer."""


class Fault(NamedTuple):
    """What becomes of one call."""

    text: str
    """What the target did, in words."""
    ending: Ending
    status: int | None = 200
    """None: it breaks off."""
    latency: float = LATENCY
    """Seconds."""


FINE = Fault("", Ending.TAKEN)
FAULTS = (
    Fault("answered 500", Ending.REFUSED, 500),
    Fault("took it and broke off", Ending.UNTOLD, None),
    Fault("answered 502", Ending.REFUSED, 502),
    Fault("broke off before it took it", Ending.REFUSED, None),
    Fault("was slow", Ending.TAKEN, latency=SLOW),
)


def usual(method: str, _: str, body: Any) -> Any:
    """Answer as the CRM of docs/crm-api.md does, and to calls of SQS as SQS does."""
    if method in LOOKS:
        return [{"id": "verify"}]
    if isinstance(body, dict) and isinstance(body.get("Entries"), list):
        return stored(body["Entries"])
    if isinstance(body, list):
        return [{"id": one["id"], "status": "ok"} for one in body if isinstance(one, dict) and "id" in one]
    return {"id": "verify", "status": "ok"}


def shape(value: Any) -> str:
    """Say how a JSON *value* looks, without what it holds beside the names of its fields."""
    if isinstance(value, list):
        return f"[{shape(value[0])}, …]" if value else "[]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)}: {shape(one)}' for name, one in value.items())}}}"
    return {str: "text", bool: "true or false", type(None): "null"}.get(type(value), "number")


def stored(entries: list[Any]) -> dict[str, Any]:
    """Answer that SQS has stored each of *entries*."""
    names = [one["Id"] for one in entries if isinstance(one, dict) and "Id" in one]
    return {
        "Successful": [{"Id": name, "MessageId": "verify", "MD5OfMessageBody": ""} for name in names],
        "Failed": [],
    }


def plan(seed: int, faults: Sequence[Fault] = FAULTS) -> Iterator[Fault]:
    """Yield for each call that speaks of messages which of *faults* it meets, or FINE; the *seed* decides.

    One of the first two is refused; from there on about every fourth meets another fault, never two in a
    row, so that no breaker opens.
    """
    chosen = random.Random(seed)
    if chosen.random() < 0.5:
        yield FINE
    yield faults[0]
    while True:
        for _ in range(chosen.randint(1, 5)):
            yield FINE
        yield chosen.choice(faults)


class Double:
    """The server; `async with` runs it."""

    def __init__(
        self,
        history: History,
        marks: Marks,
        seed: int,
        answer: Answer = usual,
        optional: Sequence[str] = (),
    ) -> None:
        """Note the calls in *history*; those to the paths *optional*, or like them, may fail."""
        self.port = 0
        self.busy = 0
        """Calls that are not answered yet."""
        self._history = history
        self._marks = marks
        self._plan = plan(seed)
        self._answer = answer
        self._optional = optional
        self._running = AsyncExitStack()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    async def __aenter__(self) -> "Double":
        async with AsyncExitStack() as stack:
            listener = await anyio.create_tcp_listener(local_host=HOST, local_port=0)
            await stack.enter_async_context(listener)
            self.port = listener.extra(SocketAttribute.local_port)
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(listener.serve, self._serve)
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.__aexit__(kind, error, trace)

    async def _serve(self, stream: SocketStream) -> None:
        reader = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while await self._one(reader, stream):
                    pass
            except (*GONE, anyio.DelimiterNotFound, ValueError):  # it went, or speaks no HTTP/1.1
                return

    async def _one(self, reader: BufferedByteReceiveStream, stream: SocketStream) -> bool:
        """Answer one request; return whether the connection stays."""
        head = (await reader.receive_until(b"\r\n\r\n", 1 << 16)).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await content(reader, headers)
        self.busy += 1
        try:
            status, text = await self._told(method, target, headers, body)
        finally:
            self.busy -= 1
        if status is None:
            return False
        await stream.send(
            f"HTTP/1.1 {status} verify\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n".encode()
            + (b"" if method == "HEAD" else text)
        )
        return True

    async def _told(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int | None, bytes]:
        """Note the call and return status and content of the answer; no status: break off."""
        about = set() if method in LOOKS else self._marks.found(target, headers, body)
        if not about:
            self._history.others += 1
            return self._fine(method, target, body)
        path = urlsplit(target).path
        call = self._history.begin(about, f"{method} {path}")
        call.optional = any(fnmatchcase(path, one) for one in self._optional)
        fault = next(self._plan)
        call.fault = fault.text
        await anyio.sleep(fault.latency)
        self._history.end(call, fault.ending)
        if fault.status == 200:
            return self._fine(method, target, body)
        return fault.status, b"{}"

    def _fine(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Return status and content of what is answered when nothing goes wrong.

        Raises:
            ConfigError: the function that answers fails, or returns what is no JSON.
        """
        read, _ = tried(json.loads, body)
        answer, error = tried(lambda: json.dumps(self._answer(method, target, read)).encode())
        if error is not None:
            raise ConfigError(f"the function of --answer failed: {describe(error)}")
        own = self._answer is usual
        self._history.answers[method] = shape(json.loads(answer)) if own else "what --answer returned"
        return 200, answer


async def content(reader: BufferedByteReceiveStream, headers: Mapping[str, str]) -> bytes:
    """Read the body of a request.

    Raises:
        ValueError: it is too large, or its length is no number.
    """
    if headers.get("transfer-encoding", "").lower() != "chunked":
        size = int(headers.get("content-length", "0"))
        if size > LARGEST:
            raise ValueError("too large")
        return await reader.receive_exactly(size) if size else b""
    body = b""
    while size := int((await reader.receive_until(b"\r\n", 100)).split(b";")[0], 16):
        body += await reader.receive_exactly(size)
        await reader.receive_exactly(2)
        if len(body) > LARGEST:
            raise ValueError("too large")
    await reader.receive_until(b"\r\n", 100)
    return body
