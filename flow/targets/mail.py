"""Mails to supporters: settings, letters from templates, and one connection for each batch."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, TypeVar

from flow.batch import Batch
from flow.errors import ConfigError
from flow.message import Message
from flow.options import seconds
from flow.outcome import Reject, Retry, Skip, Unavailable
from flow.records.database import Database
from flow.records.mailing import Recipient as Recipient  # this and the next are for pipelines
from flow.records.mailing import Recipients as Recipients
from flow.records.mailing import reachable
from flow.records.url import VARIABLE
from flow.schema import ActionMessage, IdsMessage
from flow.settings import Secret, Settings
from flow.targets.addresses import Mailbox, mailbox, name_of_person, sender
from flow.targets.bounces import Bounces
from flow.targets.letters import Letter, Sender, compose, message_id
from flow.targets.smtp import (
    LONGEST,
    Bounced,
    MailServer,
    OutcomeUnknown,
    Security,
    Sending,
    SmtpConnection,
)
from flow.targets.templates import Templates

A = TypeVar("A")
B = TypeVar("B", bound=IdsMessage | ActionMessage)
BATCH = 90.0  # seconds in which mails of a batch are begun; with the last one it ends within 300
LATEST = 600.0  # seconds until a mail is tried again, at most


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
    sender: str  # "River Club <mail@example.org>"; an organisation may have its own
    bounce_address: str | None = None  # where servers report to; None: to the sender
    templates: str | None = None  # a folder of yours; None: only the templates that flow brings along
    test_address: str | None = None  # where the mails of test actions go; None: they are not sent
    retry_after: float = 60.0  # seconds until a mail that was not taken is tried again; then twice as long


class MailTarget:
    """Writes letters from templates and hands them in."""

    def __init__(self, settings: MailSettings, database: Database | None = None) -> None:
        """Take the settings, and the *database* in which bounces are noted; None: nobody is told of them.

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
        )
        self.templates = Templates(settings.templates)
        found = sender(settings.sender)
        if found is None:
            raise ConfigError("MAIL_SENDER must be an address, or a name and an <address>")
        self._name, self._address = found
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

        async def mail(session: "MailSession", message: Message[B]) -> None:
            await self._mail(session, batch, message, found, letter)

        await self.each(batch, mail)

    async def each(
        self, batch: Batch[A], mail: "Callable[[MailSession, Message[A]], Awaitable[None]]"
    ) -> None:
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
        async with self.session() as session:
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
        session: "MailSession",
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
    async def session(self) -> AsyncIterator["MailSession"]:
        """Open a session for the mails of one batch; it connects when the first is sent."""
        connection = SmtpConnection(self.server)
        try:
            yield MailSession(connection, time.monotonic() + BATCH)
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


class MailSession:
    """The mails of one batch, over one connection as long as the server keeps it."""

    def __init__(self, connection: SmtpConnection, deadline: float) -> None:
        """Take a connection, not opened yet, and the monotonic time at which no mail is begun any more."""
        self._connection = connection
        self._deadline = deadline

    async def send(self, letter: Letter, sending: Sending | None = None) -> None:
        """Hand in *letter*; *sending* surrounds the moments in which its fate is not known.

        Raises:
            Unavailable: the server is away, or too slow for the whole batch.
            Retry: not now.
            Bounced: there is no such address.
            OutcomeUnknown: it was given to the server, whose reply was never heard; never send it again.
            Reject: the server will not take it.
        """
        if time.monotonic() > self._deadline:
            raise Unavailable("the mail server is too slow for the whole batch")
        connection = self._connection
        if not connection.is_open:
            await connection.open()
        try:
            await self._hand_in(letter, sending)
        except Retry:
            # Servers close a connection that has brought many mails: that says nothing of this one.
            if connection.is_open or connection.begun or not connection.sent:
                raise
            await connection.open()
            await self._hand_in(letter, sending)

    async def _hand_in(self, letter: Letter, sending: Sending | None) -> None:
        await self._connection.send(
            letter.mail_from, letter.to, letter.content, utf8=letter.utf8, sending=sending
        )


@contextmanager
def deciding(batch: Batch[Any], message: Message[Any], soonest: float) -> Iterator[None]:
    """Let a verdict raised within decide *message* alone; a target that is away still decides all.

    What is to be tried again without a time of its own waits *soonest* seconds, then twice as long, at most
    ten minutes: servers that do not know a sender yet ask for some patience.
    """
    try:
        yield
    except Skip as verdict:
        batch.skip(message, verdict.reason)
    except Retry as verdict:
        patience = min(soonest * 2 ** min(message.attempt - 1, 10), LATEST)
        batch.retry(message, verdict.reason, patience if verdict.after is None else verdict.after)
    except Reject as verdict:
        batch.reject(message, verdict.reason)


def shown(to: Recipient) -> dict[str, Any]:
    """Return the variables that every template gets."""
    return {
        "first_name": name_of_person(to.first_name),
        "email": to.email or "",
        "action_id": to.action_id,
        "action_type": to.action_type,
        "custom_fields": to.custom_fields,
        "page": {"name": to.page, "locale": to.locale},
        "campaign": {"name": to.campaign, "title": to.campaign_title},
        "org": {"name": to.org, "title": to.org_title},
        "unsubscribe_link": "",
    }


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
