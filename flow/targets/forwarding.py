"""Asking moderators: what they are to decide, sent to their webhook or to their mailbox."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import msgspec

from flow.batch import Batch
from flow.errors import ConfigError
from flow.message import Message
from flow.outcome import Reject, Retry, Unavailable
from flow.ratelimit import RateLimit
from flow.records.mailing import of_message
from flow.schema import ActionMessage, CustomFields
from flow.settings import Secret, load
from flow.targets.addresses import Mailbox, mailbox, one_line
from flow.targets.letters import Letter, compose, message_id
from flow.targets.links import About
from flow.targets.mail import MailSettings, MailTarget
from flow.targets.senders import check_rate
from flow.targets.session import MailSession
from flow.targets.smtp import RecipientRefused
from flow.targets.variables import shown
from flow.targets.webhook import CallSettings, WebhookTarget

TEMPLATE = "moderate"
LONGEST = 1000  # characters of one answer in a mail


class ForwardSettings(CallSettings):
    """Where moderators are asked: either `url` and `secrets` of a webhook, or `to`, an address.

    For mail there are `MAIL_HOST`, `MAIL_SENDER` and so on as well.
    """

    url: str | None = None
    secrets: Secret | None = None  # several are separated by white space; each of them signs
    to: str | None = None
    locale: str | None = None  # the language of the mails; None: that of the action page
    rate: float | None = None  # questions a second, by either way; None: 20

    def __post_init__(self) -> None:
        """Refuse what says no way, or two, or a wrong one, and a rate that is none.

        Raises:
            ValueError: it says no way or two, or the rate is none.
            ConfigError: the way is wrong.
        """
        hook = self.url is not None and self.secrets is not None
        if (self.url is None) != (self.secrets is None) or hook == (self.to is not None):
            name = self.prefix
            raise ValueError(f"set either {name}_URL and {name}_SECRETS, or {name}_TO")
        check_rate(f"{self.prefix}_RATE", self.rate)
        if self.to is None:
            self.webhook()
        else:
            self.mailbox()

    def webhook(self) -> WebhookTarget:
        """Return the webhook, not opened yet.

        Raises:
            ConfigError: there is none, or a value is wrong.
        """
        if self.url is None or self.secrets is None:
            raise ConfigError(f"{self.prefix}_URL and {self.prefix}_SECRETS are not set")
        return self.called("the moderators' webhook", self.url, self.secrets)

    def mailbox(self) -> Mailbox:
        """Return the address.

        Raises:
            ConfigError: it is none.
        """
        found = mailbox(self.to or "")
        if found is None:
            raise ConfigError(f"{self.prefix}_TO must be an address like moderators@example.org")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What somebody is to decide; printed without whom it is about."""

    about: About
    accept: str
    """The link for it; it is as good as the decision."""
    reject: str
    body: ActionMessage
    raw: bytes
    """The message as it was in the queue."""

    @property
    def key(self) -> str:
        """What is asked only once: an action may be asked about after its supporter was."""
        return f"{self.about}-{self.body.action_id}"

    def __repr__(self) -> str:
        return f"<Question {self.key}>"


class Asked(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="schema", tag="flow:question:1"
):
    """What the webhook gets."""

    about: About
    action_id: int
    accept_link: str
    reject_link: str
    message: msgspec.Raw


class Forward(Protocol):
    """A way to the moderators."""

    async def deliver(self, batch: Batch[Question]) -> None:
        """Ask each question of *batch*; what becomes of one is marked.

        Raises:
            Unavailable: nobody can be asked this way now.
        """


def check_mail(settings: ForwardSettings, environment: Mapping[str, str]) -> None:
    """Refuse what no mail could be sent with, if that is the way, before anything starts.

    Raises:
        ConfigError: a setting of mail in *environment* is missing or wrong.
    """
    if settings.to is not None:
        load(MailSettings, environment)


@asynccontextmanager
async def forwarding(
    settings: ForwardSettings, environment: Mapping[str, str], rate_limit: RateLimit | None = None
) -> AsyncIterator[Forward]:
    """Open the way that *settings* name; those of mail are in *environment*.

    Mails that a *rate_limit* has let go together are spread evenly.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    if settings.to is not None:
        yield MailForward(settings, load(MailSettings, environment), rate_limit)
        return
    async with settings.webhook() as target:
        yield WebhookForward(target)


class WebhookForward:
    """Asks by one signed POST for each question, all of a batch at once."""

    def __init__(self, target: WebhookTarget) -> None:
        """Take the *target*, which is open."""
        self._target = target

    async def deliver(self, batch: Batch[Question]) -> None:
        """Ask each question of *batch*; one that is asked again has the same `Flow-Id`.

        Raises:
            Unavailable: the receiver is away.
        """
        away: list[Unavailable] = []
        async with anyio.create_task_group() as calls:
            for message in batch:
                calls.start_soon(self._ask, batch, message, away)
        if away:
            raise away[0]

    async def _ask(self, batch: Batch[Question], message: Message[Question], away: list[Unavailable]) -> None:
        try:
            await self._target.send(hashlib.sha256(message.body.raw).hexdigest(), asked(message.body))
        except Unavailable as verdict:
            away.append(verdict)
        except Retry as verdict:
            batch.retry(message, verdict.reason, verdict.after)
        except Reject as verdict:
            batch.reject(message, verdict.reason)


class MailForward:
    """Asks by one mail for each question, over one connection for a batch."""

    def __init__(
        self, settings: ForwardSettings, mail: MailSettings, rate_limit: RateLimit | None = None
    ) -> None:
        """Take the settings, and the *rate_limit* in whose pace mails go out.

        Raises:
            ConfigError: one of them is wrong, or a library is missing.
        """
        self._to = settings.mailbox()
        self._locale = settings.locale
        self._mail = MailTarget(mail, rate_limit=rate_limit)

    async def deliver(self, batch: Batch[Question]) -> None:
        """Ask each question of *batch*.

        Raises:
            Unavailable: the mail server is away, or does not take mail to the moderators.
            OutcomeUnknown: a mail was given to the server, whose reply was never heard.
        """

        async def mail(session: MailSession, message: Message[Question]) -> None:
            letter = self.letter(message.body)
            message.target_id = letter.message_id
            try:
                await session.send(letter, batch.sending(message))
            except RecipientRefused as refused:  # the same for every question, until somebody mends it
                raise Unavailable(f"the moderators' address: {refused.reason}") from None

        await self._mail.each(batch, mail)

    def letter(self, question: Question) -> Letter:
        """Write the mail.

        Raises:
            Retry: the template is missing or wrong.
        """
        about = of_message(question.body)
        rendered = self._mail.templates.find(TEMPLATE, self._locale or about.locale).render(
            {**shown(about), **told(question)}
        )
        identifier = message_id(about.action_id, about.contact_ref, f"{TEMPLATE}/{question.about}")
        return compose(rendered, self._mail.sender(about), self._to, identifier, {})


def asked(question: Question) -> bytes:
    """Return the JSON of *question* for a webhook, with the message byte for byte in it."""
    return msgspec.json.encode(
        Asked(
            about=question.about,
            action_id=question.body.action_id,
            accept_link=question.accept,
            reject_link=question.reject,
            message=msgspec.Raw(question.raw),
        )
    )


def told(question: Question) -> dict[str, Any]:
    """Return what the template gets beyond what every template gets.

    All that was typed is one line, so that nothing in a mail looks as if flow said it.
    """
    action, contact = question.body.action, question.body.contact
    names = (contact.first_name, contact.last_name)
    places = (contact.postcode, contact.locality, contact.country or contact.area)
    return {
        "about": question.about,
        "accept_link": question.accept,
        "reject_link": question.reject,
        "encrypted": question.body.personal_info is not None,
        "name": short(" ".join(name for name in names if name)),
        "email": short(contact.email or ""),
        "place": short(" ".join(place for place in places if place)),
        "action_type": short(action.action_type),
        "done_at": action.created_at,
        "answers": answers(action.custom_fields),
    }


def answers(fields: CustomFields) -> list[tuple[str, str]]:
    """Return the questions of a form with what was answered, if anything was."""
    lines = ((short(name), short(text_of(value))) for name, value in fields.items())
    return [(name, answer) for name, answer in lines if answer]


def text_of(value: object) -> str:
    """Return an answer of a form as text."""
    if isinstance(value, list):
        return ", ".join(text_of(one) for one in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def short(text: str) -> str:
    """Return *text* as one line that is not too long to read."""
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
