"""A small mail server that keeps what it gets as files, and refuses on order; for the demo."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

HOST = "127.0.0.1"
LARGEST = 1 << 20  # bytes of a line
ADDRESS = re.compile(rb"<([^<>]*)>")
LINK = re.compile(r"https?://\S+")

Refusal = Callable[[str], str | None]


class Mail(NamedTuple):
    """One mail that was taken."""

    number: int
    """From 1, in the order in which they came."""
    to: str
    subject: str
    action_id: int
    """Of the action that it is about, as its Message-ID has it."""
    message_id: str
    links: tuple[str, ...]
    """In its text."""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.number:06}.eml"

    def link(self, verb: str) -> str | None:
        """Return its link to accept or to reject, or None: it has none."""
        return next((link for link in self.links if f"/{verb}/" in link), None)


class MailSink:
    """A server on a free port of this machine; `async with` starts and stops it."""

    def __init__(self, folder: Path, arrived: Callable[[Mail], None]) -> None:
        """Put mails into *folder*; *arrived* is told of each before it is confirmed."""
        self.folder = folder
        self.mails: list[Mail] = []
        self.refused: Counter[str] = Counter()
        """How often each of its refusals was said."""
        self.down = False
        """Whether it takes nothing now."""
        self.recipient: Refusal = lambda address: None
        """What is said of a recipient instead of yes."""
        self._arrived = arrived
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> "MailSink":
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=LARGEST)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await Talk(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the other side has gone, or talks no SMTP
        finally:
            self._writers.discard(writer)
            writer.close()

    def take(self, to: str, content: bytes) -> None:
        """Keep a mail."""
        parsed = message_from_bytes(content)
        name = str(parsed["Message-ID"] or "").strip("<> ")
        about = name.partition(".")[0]
        mail = Mail(
            number=len(self.mails) + 1,
            to=to,
            subject=str(make_header(decode_header(parsed["Subject"] or ""))),
            action_id=int(about) if about.isdecimal() else 0,
            message_id=name,
            links=tuple(LINK.findall(text_of(parsed))),
        )
        (self.folder / mail.file).write_bytes(content)
        self.mails.append(mail)
        self._arrived(mail)


def text_of(mail: Message) -> str:
    """Return the first plain text in *mail*."""
    for part in mail.walk():
        if part.get_content_type() == "text/plain":
            content = part.get_payload(decode=True)
            return content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
    return ""


class Talk:
    """One connection."""

    def __init__(self, sink: MailSink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink = sink
        self._reader = reader
        self._writer = writer
        self._to: list[str] = []

    async def run(self) -> None:
        """Answer until the other side leaves."""
        if self._sink.down:
            await self._say("421 4.3.2 closed for a moment")
            return
        await self._say("220 mail.example.org ready")
        while line := await self._reader.readline():
            verb = line[:4].upper().strip()
            answer = await self._answer(verb, line)
            await self._say(answer)
            if verb == b"QUIT" or answer.startswith("421"):
                return

    async def _answer(self, verb: bytes, line: bytes) -> str:
        match verb:
            case b"EHLO":
                return "250-mail.example.org\r\n250 8BITMIME"
            case b"MAIL":
                self._to = []
                return "421 4.3.2 closed for a moment" if self._sink.down else "250 2.1.0 fine"
            case b"RCPT":
                return self._recipient(line)
            case b"DATA" if self._to:
                await self._say("354 go on")
                content = await self._content()
                for to in self._to:
                    self._sink.take(to, content)
                self._to = []
                return "250 2.0.0 taken"
            case b"HELO" | b"NOOP" | b"RSET" | b"QUIT":
                self._to = []
                return "221 bye" if verb == b"QUIT" else "250 fine"
        return "503 5.5.1 not now"

    def _recipient(self, line: bytes) -> str:
        found = ADDRESS.search(line)
        address = found[1].decode("utf-8", "replace") if found else ""
        refusal = self._sink.recipient(address)
        if refusal is not None:
            self._sink.refused[refusal] += 1
            return refusal
        self._to.append(address)
        return "250 2.1.5 fine"

    async def _content(self) -> bytes:
        lines: list[bytes] = []
        while (line := await self._reader.readuntil(b"\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    async def _say(self, answer: str) -> None:
        self._writer.write(answer.encode() + b"\r\n")
        await self._writer.drain()
