"""Mails to supporters: settings, letters from templates, and one connection for each batch."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

from flow.batch import Batch
from flow.errors import ConfigError
from flow.message import Message
from flow.options import seconds
from flow.outcome import Reject, Retry, Skip
from flow.ratelimit import RateLimit
from flow.records.database import Database
from flow.records.mailing import Recipient as Recipient  # this and the next are for pipelines
from flow.records.mailing import Recipients as Recipients
from flow.records.mailing import reachable
from flow.records.url import VARIABLE
from flow.schema import ActionMessage, IdsMessage
from flow.settings import Secret, Settings
from flow.targets.addresses import Mailbox, mailbox, sender
from flow.targets.bounces import Bounces
from flow.targets.letters import Letter, Sender, compose, message_id
from flow.targets.mail_server import LONGEST, MailServer, Security
from flow.targets.senders import Senders, check_rate, gap
from flow.targets.session import MailSession, deciding
from flow.targets.smtp import Bounced, OutcomeUnknown, SmtpConnection
from flow.targets.templates import Templates
from flow.targets.variables import shown

A = TypeVar("A")
B = TypeVar("B", bound=IdsMessage | ActionMessage)


class MailSettings(Settings):
    """Where mail is handed in, and from whom it is: MAIL_HOST, MAIL_SENDER and so on."""

    prefix: ClassVar = "MAIL"
    host: str
    port: int | None = None  # None: 587, or 465 with tls, 25 with none
    security: Security = "starttls"
    user: str | None = None
    password: Secret | None = None
    timeout: float = LONGEST  # seconds for one command, 20 at most
    cafile: str | None = None  # authorities to trust instead of the machine's
    helo: str | None = None  # how this machine calls itself to the server; None: by its own full name
    sender: str  # "River Club <mail@example.org>"; an organisation may have its own
    bounce_address: str | None = None  # where servers report to; None: to the sender
    templates: str | None = None  # a folder of yours; None: only the templates that flow brings along
    test_address: str | None = None  # where the mails of test actions go; None: they are not sent
    retry_after: float = 60.0  # seconds until a mail that was not taken is tried again; then twice as long

    def __post_init__(self) -> None:
        """Refuse what `MailTarget` refuses, so that it is known before anything starts.

        Raises:
            ConfigError: a value is wrong, or aiosmtplib or Jinja2 is not installed.
        """
        MailTarget(self)


class SupporterMailSettings(MailSettings):
    """What mails to supporters need beyond that."""

    rate: float | None = None  # mails a second for each sender; None: 20

    def __post_init__(self) -> None:
        """Check the rate as well.

        Raises:
            ConfigError: another value is wrong.
            ValueError: the rate is no number above 0.
        """
        super().__post_init__()
        check_rate("MAIL_RATE", self.rate)


class MailTarget:
    """Writes letters from templates and hands them in."""

    def __init__(
        self,
        settings: MailSettings,
        database: Database | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        """Take the settings, and the *database* in which bounces are noted; None: nobody is told of them.

        The mails of a batch that a *rate_limit* has let go are spread evenly, over ten seconds at most.

        Raises:
            ConfigError: one of them is wrong, or aiosmtplib or Jinja2 is not installed.
        """
        self.server = MailServer(
            host=settings.host,
            port=settings.port,
            security=settings.security,
            user=settings.user,
            password=settings.password,
            timeout=settings.timeout,
            cafile=settings.cafile,
            helo=settings.helo,
        )
        self.templates = Templates(settings.templates)
        found = sender(settings.sender)
        if found is None:
            raise ConfigError("MAIL_SENDER must be an address, or a name and an <address>")
        self._name, self._address = found
        self.senders = Senders(database, self._address)
        self._limit = rate_limit
        self._bounces = address_setting("MAIL_BOUNCE_ADDRESS", settings.bounce_address)
        self._test = address_setting("MAIL_TEST_ADDRESS", settings.test_address)
        self._bounced = Bounces(database)
        seconds("MAIL_RETRY_AFTER", settings.retry_after)
        self._soonest = settings.retry_after

    async def deliver(
        self, batch: Batch[B], found: Mapping[int, Recipient], letter: Callable[[Recipient], Letter]
    ) -> None:
        """Send each message of *batch* the *letter* to whom was *found*, by the id of the action.

        All of them go over one connection, and what becomes of one mail decides its message only. *letter*
        may raise `Skip`, `Retry` or `Reject`.

        Raises:
            Unavailable: the mail server is away; what was sent counts.
            OutcomeUnknown: a mail was given to the server, whose reply was never heard.
            ConfigError: the pipeline has no claim.
        """

        async def mail(session: MailSession, message: Message[B]) -> None:
            await self._mail(session, batch, message, found, letter)

        await self.each(batch, mail)

    async def each(self, batch: Batch[A], mail: Callable[[MailSession, Message[A]], Awaitable[None]]) -> None:
        """Call *mail* for each message of *batch*, with one session for all; what it raises decides one.

        It surrounds the sending with `batch.sending`.

        Raises:
            Unavailable: the mail server is away; what was sent counts.
            OutcomeUnknown: a mail was given to the server, whose reply was never heard.
            ConfigError: the pipeline has no claim.
        """
        if batch.claim is None:
            raise ConfigError("a pipeline that mails must have a claim, so that nobody is mailed twice")
        unknown: OutcomeUnknown | None = None
        async with self.session(len(batch)) as session:
            for message in batch:
                try:
                    with deciding(batch, message, self._soonest):
                        await mail(session, message)
                except OutcomeUnknown as error:
                    unknown = error
        if unknown is not None:
            raise unknown  # decides only what was on its way, and parks it

    async def _mail(
        self,
        session: MailSession,
        batch: Batch[B],
        message: Message[B],
        found: Mapping[int, Recipient],
        letter: Callable[[Recipient], Letter],
    ) -> None:
        to = found.get(message.body.action_id)
        if to is None:
            raise Retry(f"nothing is known of the action: is {VARIABLE} set to its records?")
        made = letter(reachable(to))
        message.target_id = made.message_id  # what the mail server's log calls it
        try:
            await session.send(made, batch.sending(message))
        except Bounced:
            if not to.testing:
                await self._bounced.note(to)
            raise

    @asynccontextmanager
    async def session(self, count: int) -> AsyncIterator[MailSession]:
        """Open a session for the mails of one batch, *count* of them; it connects when the first is sent."""
        connection = SmtpConnection(self.server)
        try:
            yield MailSession(connection, gap(self._limit, count))
        finally:
            await connection.close()

    def letter(
        self,
        template: str,
        to: Recipient,
        variables: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Letter:
        """Write a letter: *template* in the nearest language of the action page, filled in for *to*.

        Raises:
            Skip: it is a test action, and there is no address for those.
            Reject: there is no address, or none that mail can be sent to.
            Retry: the template is missing or wrong, or the organisation's sender is no address.
        """
        address = self.address(to)
        found = self.templates.find(template, to.locale)
        rendered = found.render({**shown(to), **(variables or {})})
        identifier = message_id(to.action_id, to.contact_ref, template)
        return compose(rendered, self.sender(to), address, identifier, headers or {})

    def address(self, to: Recipient) -> Mailbox:
        """Return where the mails to a recipient go."""
        if to.testing:
            if self._test is None:
                raise Skip("a test action")
            return self._test
        if not to.email:
            raise Reject("there is no address to write to")
        address = mailbox(to.email)
        if address is None:
            raise Reject("the address is none that mail can be sent to")
        return address

    def sender(self, to: Recipient) -> Sender:
        """Return from whom the mails of a recipient's organisation are."""
        if to.mail_from is None:
            return Sender(name=self._name or to.org_title, address=self._address, bounces=self._bounces)
        found = sender(to.mail_from)
        if found is None:
            raise Retry(f"the sender of organisation {to.org_id} is no address")
        return Sender(name=found[0] or to.org_title, address=found[1], bounces=self._bounces)


def address_setting(name: str, text: str | None) -> Mailbox | None:
    """Return the address in the setting *name*.

    Raises:
        ConfigError: it is none.
    """
    if text is None:
        return None
    found = mailbox(text)
    if found is None:
        raise ConfigError(f"{name} must be an address like mail@example.org")
    return found
