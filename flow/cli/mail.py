"""`flow mail preview`: show a mail as somebody would get it, without sending it."""

import os
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec

from flow.cli.errors import Guarded, say
from flow.cli.masking import printable
from flow.cli.private import new_file
from flow.errors import ConfigError
from flow.exits import FAILED
from flow.outcome import Verdict
from flow.records.database import Database
from flow.records.mailing import Recipient, Recipients
from flow.records.url import DatabaseUrl
from flow.schema import Donation, IdsMessage
from flow.targets.addresses import mailbox, sender
from flow.targets.forwarding import TEMPLATE, answers
from flow.targets.letters import Letter, Sender, compose, message_id
from flow.targets.links import ConfirmLinks, UnsubscribeLinks
from flow.targets.templates import LetterTemplate, Rendered, Templates
from flow.targets.variables import shown

LINKS = "https://example.org"
MODERATORS = "moderators@example.org"
KINDS = (".eml", ".html", ".txt")
SAMPLE = Recipient(
    action_id=7,
    contact_ref="REFERENCE",
    email="ada@example.org",
    first_name="Ada",
    opt_in=True,
    action_type="register",
    created_at=datetime(2026, 2, 19, 15, 17, tzinfo=UTC),
    custom_fields={"comment": "Clean water for all"},
    donation=Donation(amount=Decimal(1250), currency="EUR", frequency_unit="one_off"),
    page="clean_water/river_club",
    locale="en",
    campaign="clean_water",
    campaign_title="Clean water",
    org="river_club",
    org_title="River Club",
)


@click.group(cls=Guarded)
def mail() -> None:
    """Look at mails before anybody gets them."""


@mail.command(short_help="Show a template as a mail; nothing is sent.")
@click.argument("template")
@click.argument("action_id", type=click.IntRange(0, 2**63 - 1), required=False)
@click.option("--locale", help="Show it in this language, such as de_AT. Defaults to the action page's.")
@click.option(
    "--templates",
    envvar="MAIL_TEMPLATES",
    metavar="FOLDER",
    help="The folder of templates. Defaults to MAIL_TEMPLATES; what is not there is taken from flow.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    allow_from_autoenv=False,
    help="Write it to this new file: .eml the whole mail, .html or .txt one part. Defaults to the terminal.",
)
@click.option(
    "--database-url",
    metavar="URL",
    allow_from_autoenv=False,
    help="The records of ACTION_ID. Defaults to FLOW_DATABASE_URL.",
)
@click.option(
    "--show-personal-data",
    "revealing",
    is_flag=True,
    allow_from_autoenv=False,
    help="Show name, address, answers and links as they are.",
)
def preview(
    template: str,
    action_id: int | None,
    locale: str | None,
    templates: str | None,
    out: Path | None,
    database_url: str | None,
    revealing: bool,
) -> None:
    """Show TEMPLATE as the supporter of ACTION_ID would get it; nothing is sent.

    Without ACTION_ID it is filled in with invented data, and no database is needed.
    """
    if out is not None and out.suffix not in KINDS:
        raise click.UsageError(f"--out must end with {' or '.join(KINDS)}")
    to = SAMPLE if action_id is None else anyio.run(_found, action_id, database_url)
    if to is None:
        say(f"the records hold no action {action_id}")
        sys.exit(FAILED)
    if action_id is not None and not revealing:
        to = masked(to)
    try:
        found = Templates(templates).find(template, locale or to.locale)
        rendered = found.render(variables(to) | (asking(to) if template == TEMPLATE else {}))
        letter = composed(rendered, to, template)
    except Verdict as verdict:
        raise ConfigError(verdict.reason) from None
    if out is None:
        show(found, rendered, letter)
    else:
        write(out, rendered, letter)


async def _found(action_id: int, text: str | None) -> Recipient | None:
    url = DatabaseUrl.parse(text) if text else DatabaseUrl.from_environment(os.environ)
    if url is None:
        raise ConfigError("an ACTION_ID needs the records: set FLOW_DATABASE_URL, or leave it out")
    asked = IdsMessage(action_id=action_id, action_page_id=0, org_id=0)
    async with Database.opened(url) as database:
        try:
            return (await Recipients(database).find([asked])).get(action_id)
        except Verdict as verdict:
            raise ConfigError(verdict.reason) from None


def masked(to: Recipient) -> Recipient:
    """Return *to* with words in the place of personal data; what is missing stays missing."""
    return msgspec.structs.replace(
        to,
        contact_ref="REFERENCE",
        email="supporter@example.org" if to.email else to.email,
        first_name="[first name]" if to.first_name else to.first_name,
        custom_fields=dict.fromkeys(to.custom_fields, "[answer]"),
        donation=SAMPLE.donation if to.donation else None,
    )


def variables(to: Recipient) -> dict[str, Any]:
    """Return what mails to supporters put into templates."""
    confirming = ConfirmLinks(os.environ.get("MAIL_LINK_URL") or LINKS)
    return {**shown(to), **confirming.variables(to), **leaving().variables(to)}


def leaving() -> UnsubscribeLinks:
    """Return how mail is ended: as set, or invented."""
    url, address = (os.environ.get(f"MAIL_UNSUBSCRIBE_{name}") or None for name in ("URL", "ADDRESS"))
    return UnsubscribeLinks(url if url or address else f"{LINKS}/unsubscribe", address)


def asking(to: Recipient) -> dict[str, Any]:
    """Return what moderators are told beyond that."""
    return {
        "about": "action",
        "encrypted": False,
        "name": to.first_name or "",
        "place": "",
        "done_at": to.created_at,
        "answers": answers(to.custom_fields),
    }


def composed(rendered: Rendered, to: Recipient, template: str) -> Letter:
    """Return the whole mail."""
    asked = os.environ.get("MODERATE_TO") or MODERATORS if template == TEMPLATE else to.email
    whom, address = mailbox(asked or ""), sender(to.mail_from or os.environ.get("MAIL_SENDER") or "")
    name, box = address or ("", mailbox("mail@example.org"))
    if whom is None or box is None:
        raise ConfigError("the action has no address that mail can be sent to")
    known = Sender(name=name or to.org_title, address=box)
    # What asks nothing thanks, and can be unsubscribed from.
    headers = (
        {} if f"/link/s/{to.action_id}/" in rendered.text or template == TEMPLATE else leaving().headers(to)
    )
    return compose(rendered, known, whom, message_id(to.action_id, to.contact_ref, template), headers)


def show(found: LetterTemplate, rendered: Rendered, letter: Letter) -> None:
    """Print the mail as text."""
    click.echo(f"Template: {found.name}/{found.locale}")
    click.echo(f"To: {printable(letter.to)}")
    click.echo(f"Subject: {printable(rendered.subject)}\n")
    click.echo("\n".join(printable(line) for line in rendered.text.split("\n")))
    if rendered.html is not None:
        click.echo("There is HTML as well: --out preview.html writes it to a file.", err=True)


def write(out: Path, rendered: Rendered, letter: Letter) -> None:
    """Write the mail, or one part of it, to a new file that only its owner can read."""
    if out.suffix == ".html" and rendered.html is None:
        raise ConfigError("the template has no HTML")
    contents = {
        ".eml": letter.content,
        ".txt": rendered.text.encode(),
        ".html": (rendered.html or "").encode(),
    }
    with new_file(out) as file:
        file.write(contents[out.suffix])
    click.echo(f"wrote {out}")
