"""A real mail server on 127.0.0.1 that refuses, hangs and breaks off as it is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

import anyio
import anyio.lowlevel
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.nodes.rabbitmq_node import Certificate

DROP = "drop"
"""Break the connection off instead of replying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One mail that the server took."""

    mail_from: str
    to: list[str]
    content: bytes
    utf8: bool
    encrypted: bool
    user: str | None
    greeted: str | None = None
    """How the client called itself."""

    @property
    def mail(self) -> EmailMessage:
        """The mail as a program would show it."""
        found = BytesParser(policy=default).parsebytes(self.content)
        assert isinstance(found, EmailMessage)
        return found

    def text(self, kind: str = "plain") -> str:
        """Its text, or its HTML."""
        body = self.mail.get_body((kind,))
        assert isinstance(body, EmailMessage)
        return str(body.get_content()).replace("\r\n", "\n")


@dataclass
class Postbox:
    """What arrived, and how it answers from now on."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    sender: Callable[[str], str | None] = lambda address: None
    """What it says to MAIL FROM instead of 250; `DROP` breaks off."""
    recipient: Callable[[str], str | None] = lambda address: None
    content: Callable[[Envelope], str | None] = lambda envelope: None
    """What it says to a whole mail; a mail with such an answer is in `refused`."""
    reset: Callable[[], str | None] = lambda: None
    """What it says to RSET instead of 250."""
    refused: list[str] = field(default_factory=list)
    login: Callable[[str, str], bool] = lambda user, password: True
    hang: anyio.Event | None = None
    """When set, a whole mail is answered only after this event."""
    got_whole: anyio.Event = field(default_factory=anyio.Event)
    """Set when a whole mail has arrived, before it is answered."""

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.commands.append("MAIL")
        envelope.mail_from = address
        envelope.smtp_utf8 = "SMTPUTF8" in options
        return await self._say(server, self.sender(address))

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.commands.append("RCPT")
        said = await self._say(server, self.recipient(address))
        if said.startswith("250"):
            envelope.rcpt_tos.append(address)
        return said

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.commands.append("RSET")
        return await self._say(server, self.reset())

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.commands.append("QUIT")
        return "221 Bye"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.commands.append("DATA")
        self.got_whole.set()
        if self.hang is not None:
            await self.hang.wait()
        said = self.content(envelope)
        if said is None or said == DROP:
            assert isinstance(envelope.content, bytes)
            self.received.append(
                Received(
                    mail_from=envelope.mail_from or "",
                    to=list(envelope.rcpt_tos),
                    content=envelope.content,
                    utf8=envelope.smtp_utf8,
                    encrypted=session.ssl is not None,
                    user=session.auth_data,
                    greeted=session.host_name,
                )
            )
        else:
            self.refused.append(said)
        return await self._say(server, said)

    async def _say(self, server: SMTP, said: str | None) -> str:
        assert server.transport is not None
        if said == DROP:
            server.transport.abort()
            return "250 never heard"
        if said is not None and said.startswith("421"):
            await server.push(said)
            server.transport.close()
        return said or "250 OK"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        user = data.login.decode()
        good = self.login(user, data.password.decode())
        return AuthResult(success=good, handled=False, auth_data=user if good else None)


@asynccontextmanager
async def mail_server(
    certificate: Certificate | None = None, *, implicit: bool = False, utf8: bool = True
) -> AsyncIterator[Postbox]:
    """Run a server: with a *certificate* it offers STARTTLS, or speaks TLS only (*implicit*)."""
    told = Postbox()
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate, certificate.key)
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def connected() -> SMTP:
        told.connections += 1
        made = SMTP(
            told,
            loop=loop,
            hostname="mail.example.org",
            enable_SMTPUTF8=utf8,
            tls_context=None if implicit else context,
            authenticator=told.authenticate,
            auth_require_tls=False,
        )
        sessions.append(made)
        return made

    server = await loop.create_server(connected, "127.0.0.1", 0, ssl=context if implicit else None)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        for one in sessions:
            if one.transport is not None:
                one.transport.abort()
        await server.wait_closed()
        for _ in range(5):  # turns of the loop in which the server's own tasks end
            await anyio.lowlevel.checkpoint()


class Greeter(asyncio.Protocol):
    """Says one thing, or nothing, and no more."""

    def __init__(self, greeting: bytes, transports: list[asyncio.Transport]) -> None:
        self._greeting = greeting
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transports.append(transport)
        transport.write(self._greeting)


@asynccontextmanager
async def greeting_server(greeting: bytes = b"") -> AsyncIterator[int]:
    """Run a server that says *greeting* and no more; yield its port."""
    transports: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Greeter(greeting, transports), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in transports:
            one.abort()
        await server.wait_closed()
        await anyio.lowlevel.checkpoint()
