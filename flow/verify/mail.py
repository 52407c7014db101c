"""A double of a mail server: it notes what mails speak of, keeps none, and fails now and then on purpose."""

from contextlib import AsyncExitStack
from types import TracebackType

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from flow.verify.double import GONE, HOST, LARGEST, SLOW, Fault, plan
from flow.verify.history import Ending, History
from flow.verify.marks import Marks

PLACE = "MAIL"
"""What a history calls the place of mails."""
FAULTS = (
    Fault("answered 451 to a mail", Ending.REFUSED, 451),
    Fault("took a mail and broke off", Ending.UNTOLD, None),
    Fault("answered 452 to a mail", Ending.REFUSED, 452),
    Fault("broke off before it took a mail", Ending.REFUSED, None),
    Fault("was slow to take a mail", Ending.TAKEN, latency=SLOW),
)
LINE = 1 << 12  # bytes of a command


class MailDouble:
    """The server; `async with` runs it."""

    def __init__(self, history: History, marks: Marks, seed: int) -> None:
        self.port = 0
        self.busy = 0
        """Mails that are not answered yet."""
        self._history = history
        self._marks = marks
        self._plan = plan(seed, FAULTS)
        self._running = AsyncExitStack()

    async def __aenter__(self) -> "MailDouble":
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
                await say(stream, "220 verify ready")
                while await self._one(reader, stream):
                    pass
            except (*GONE, anyio.DelimiterNotFound):  # it went, or speaks no SMTP
                return

    async def _one(self, reader: BufferedByteReceiveStream, stream: SocketStream) -> bool:
        """Answer one command; return whether the connection stays."""
        verb = (await reader.receive_until(b"\r\n", LINE))[:4].upper()
        if verb == b"DATA":
            await say(stream, "354 go on")
            return await self._mail(await reader.receive_until(b"\r\n.\r\n", LARGEST), stream)
        known = verb.strip() in (b"EHLO", b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP", b"QUIT")
        lines = ("250-verify", "250 8BITMIME") if verb == b"EHLO" else ("250 fine",)
        await say(stream, *(lines if known else ("502 not known",)))
        return verb != b"QUIT"

    async def _mail(self, content: bytes, stream: SocketStream) -> bool:
        """Note a mail and answer; return whether the connection stays."""
        self.busy += 1
        try:
            status = await self._told(content)
        finally:
            self.busy -= 1
        if status is None:
            return False
        await say(stream, "250 taken" if status == 200 else f"{status} not now")
        return True

    async def _told(self, content: bytes) -> int | None:
        """Note the mail and return how it is answered; None: break off."""
        about = self._marks.found("", {}, content)
        if not about:
            self._history.others += 1
            return 200
        call = self._history.begin(about, PLACE)
        fault = next(self._plan)
        call.fault = fault.text
        await anyio.sleep(fault.latency)
        self._history.end(call, fault.ending)
        return fault.status


async def say(stream: SocketStream, *lines: str) -> None:
    """Send the *lines* of an answer."""
    await stream.send("".join(f"{line}\r\n" for line in lines).encode())
