"""One connection to a mail server: one mail after another, and what became of each."""

import re
import ssl
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

import anyio

from flow.errors import FlowError
from flow.outcome import Reject, Retry, Unavailable, Verdict
from flow.targets.mail_server import PORTS, MailServer
from flow.targets.smtp_replies import Meaning, Reply, Stage, meaning

if TYPE_CHECKING:
    from aiosmtplib import SMTP, SMTPResponse
    from aiosmtplib.protocol import SMTPProtocol

OPENING = 2  # times the timeout: what a connection may take in all, with TLS and login
PATIENCE = 5  # times the timeout: what a server may take to accept a mail that it has got whole
FAREWELL = 2.0  # seconds for QUIT
DOT = re.compile(rb"^\.", re.MULTILINE)
LINE_END = re.compile(rb"\r\n|\r|\n")
START, CLOSING = 354, 421  # the server waits for the mail; it closes the connection

Sending = AbstractAsyncContextManager[object]
"""Surrounds the moments in which it is not known whether a mail was sent, like `batch.sending(message)`."""


class RecipientRefused(Reject):
    """The mail server will never take a mail to this address."""


class Bounced(RecipientRefused):
    """The mail server says that there is no such address."""


class OutcomeUnknown(FlowError):
    """The mail was given to the server, and what it did with it was never heard: never send it again."""


class SmtpConnection:
    """A connection that is opened when it is needed; used by one task."""

    def __init__(self, server: MailServer) -> None:
        self.server = server
        self.sent = 0
        """How many mails the server has taken since it was opened."""
        self.begun = False
        """Whether the last mail was given to the server, whatever became of it."""
        self._smtp: SMTP | None = None

    @property
    def is_open(self) -> bool:
        """Whether the next mail needs no new connection, as far as one can know."""
        return self._smtp is not None and self._smtp.is_connected

    async def open(self) -> None:
        """Connect and log in.

        Raises:
            Unavailable: the server is away, offers no encryption, or refuses the login.
        """
        from aiosmtplib import SMTP, SMTPException, SMTPResponseException

        server, self.sent = self.server, 0
        secret = server.password
        smtp = SMTP(
            hostname=server.host,
            port=server.port or PORTS[server.security],
            local_hostname=server.helo,
            timeout=server.timeout,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=server.context(),
        )
        try:
            with anyio.fail_after(server.timeout * OPENING):
                await smtp.connect()
                if server.user is not None and secret is not None:
                    await smtp.login(server.user, secret.reveal())
                if smtp.is_ehlo_or_helo_needed:
                    await smtp.ehlo()
        except SMTPResponseException as error:
            smtp.close()
            said = Reply.of(error.code, error.message)
            what = "the login" if error.code in (530, 534, 535, 538) else "a new connection"
            raise Unavailable(f"the mail server refuses {what} ({said})") from None
        except (SMTPException, OSError) as error:
            smtp.close()
            raise Unavailable(f"the mail server cannot be used: {why(error)}") from None
        except BaseException:
            smtp.close()
            raise
        self._smtp = smtp

    async def close(self) -> None:
        """Say good-bye if there is somebody, at once."""
        from aiosmtplib import SMTPException

        smtp, self._smtp = self._smtp, None
        if smtp is None:
            return
        if smtp.is_connected:
            with anyio.move_on_after(FAREWELL, shield=True), suppress(SMTPException, OSError):
                await smtp.quit()
        smtp.close()

    async def send(
        self,
        mail_from: str,
        to: str,
        content: bytes,
        *,
        utf8: bool = False,
        sending: Sending | None = None,
    ) -> None:
        """Hand in one mail, *content* ending with a line end; *utf8* when an address is not ASCII.

        Within *sending* the mail is on its way: what ends it there without a reply ends as `OutcomeUnknown`.

        Raises:
            Unavailable: the server takes no mail now, whoever it is to.
            Retry: not now; nothing was sent.
            Bounced: there is no such address.
            RecipientRefused: the address will never be taken, for another reason.
            OutcomeUnknown: the mail was given to the server, which did not say what became of it.
            Reject: the server will never take it, for another reason than the address.
        """
        from aiosmtplib import SMTPException

        smtp = self._smtp
        self.begun = False
        if smtp is None or not smtp.is_connected:
            raise Retry("the connection to the mail server is gone")
        try:
            await self._envelope(smtp, mail_from, to, utf8)
            await self._content(smtp, content, nullcontext() if sending is None else sending)
        except (SMTPException, OSError) as error:
            smtp.close()
            raise Retry(f"the connection to the mail server broke: {why(error)}") from None
        except Verdict:
            await self._reset(smtp)
            raise
        except BaseException:
            smtp.close()  # nobody knows what the server waits for now
            raise
        self.sent += 1

    async def _envelope(self, smtp: "SMTP", mail_from: str, to: str, utf8: bool) -> None:
        if utf8 and not smtp.supports_extension("smtputf8"):
            raise Reject("the address is not ASCII, and the mail server does not offer SMTPUTF8")
        encoding, options = ("utf-8", [b"SMTPUTF8"]) if utf8 else ("ascii", [])
        response = await smtp.execute_command(b"MAIL", f"FROM:<{mail_from}>".encode(encoding), *options)
        if not 200 <= response.code <= 299:
            refuse(Stage.SENDER, Reply.of(response.code, response.message))
        response = await smtp.execute_command(b"RCPT", f"TO:<{to}>".encode(encoding))
        if not 200 <= response.code <= 299:
            refuse(Stage.RECIPIENT, Reply.of(response.code, response.message))

    async def _content(self, smtp: "SMTP", content: bytes, sending: Sending) -> None:
        """Send the mail itself: its two halves apart, for only the second one can end without being known."""
        response = await smtp.execute_command(b"DATA")
        protocol = smtp.protocol
        if response.code != START or protocol is None:
            refuse(Stage.CONTENT, Reply.of(response.code, response.message))
        async with sending:
            self.begun = True
            response = await self._answer(smtp, protocol, content)
            if not 200 <= response.code <= 299:
                refuse(Stage.CONTENT, Reply.of(response.code, response.message))

    async def _answer(self, smtp: "SMTP", protocol: "SMTPProtocol", content: bytes) -> "SMTPResponse":
        from aiosmtplib import SMTPException

        # A lone CR or LF could end the mail for one server and not for the next one.
        whole = DOT.sub(b"..", LINE_END.sub(b"\r\n", content)) + b".\r\n"
        try:
            protocol.write(whole)
            response = await protocol.read_response(timeout=self.server.timeout * PATIENCE)
        except (SMTPException, OSError) as error:
            smtp.close()
            raise OutcomeUnknown(
                f"the mail server did not say whether it took the mail: {why(error)}"
            ) from None
        if response.code == CLOSING:
            smtp.close()
        if not (200 <= response.code <= 299 or 400 <= response.code <= 599):
            smtp.close()  # perhaps the answer to something else, and the mail is taken all the same
            raise OutcomeUnknown(f"the mail server answered the whole mail with {response.code}")
        return response

    async def _reset(self, smtp: "SMTP") -> None:
        """Forget the mail that was refused; a server that does not even do that is left."""
        from aiosmtplib import SMTPException

        try:
            if smtp.is_connected:
                await smtp.rset()
        except (SMTPException, OSError):
            smtp.close()


def refuse(stage: Stage, reply: Reply) -> NoReturn:
    """Raise the verdict that a *reply* to the *stage* means."""
    said = f"the mail server refuses {stage.value} ({reply})"
    match meaning(stage, reply):
        case Meaning.AWAY:
            raise Unavailable(said)
        case Meaning.AGAIN:
            raise Retry(f"the mail server does not take {stage.value} now ({reply})")
        case Meaning.PARK:
            raise RecipientRefused(said) if stage is Stage.RECIPIENT else Reject(said)
        case Meaning.BOUNCE:
            raise Bounced(f"there is no such address, says the mail server ({reply})")


def why(error: Exception) -> str:
    """Say what went wrong with a connection, without what the server said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "TLS with it fails"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ConnectionError):
        return "it closed the connection"
    text = str(error)
    if "STARTTLS" in text:
        return "it does not offer STARTTLS (for a try on this machine: MAIL_SECURITY=none)"
    return "it offers no login" if "AUTH" in text else type(error).__name__
