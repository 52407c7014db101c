"""The tables of the records: what a signature is, and what became of it. Moments are UTC."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    func,
    true,
)

# Constraints have names that do not depend on the database, so that a migration can name them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = BigInteger().with_variant(
    Integer(), "sqlite"
)  # SQLite numbers rows by itself only when they are INTEGER


class Moment(TypeDecorator[datetime]):
    """An aware moment, stored and read as UTC: SQLite itself keeps no offset and would forget it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into UTC; a naive one is UTC."""
        return None if value is None else utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return it aware."""
        return None if value is None else utc(value)


def utc(moment: datetime) -> datetime:
    """Return *moment* in UTC; a naive one is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


NAME = String(255)

organisations = Table(
    "organisations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("title", Text, nullable=False, server_default=""),
    # The two settings of processing; a campaign may override each.
    Column("supporter_confirm", Boolean, nullable=False, server_default=false()),
    Column("action_confirm", Boolean, nullable=False, server_default=false()),
    # Who does it: the organisation itself from a queue of its own (custom), or flow's pipelines (system).
    Column("custom_supporter_confirm", Boolean, nullable=False, server_default=false()),
    Column("custom_delivery", Boolean, nullable=False, server_default=false()),
    # NaCl public key (base64url): with it contacts are stored as boxes, beside what mails need in the clear.
    Column("public_key", String(64)),
    Column("mail_from", NAME),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", Id, primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("name", NAME, nullable=False, unique=True),
    Column("title", Text, nullable=False, server_default=""),
    Column("external_id", BigInteger),
    Column("contact_schema", String(32), nullable=False, server_default="basic"),
    Column("supporter_confirm", Boolean),  # NULL: as the organisation says
    Column("action_confirm", Boolean),
)

action_pages = Table(
    "action_pages",
    metadata,
    Column("id", Id, primary_key=True),
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("name", NAME, nullable=False, unique=True),
    Column("locale", String(16), nullable=False, server_default="en"),
    Column("thank_you_template", NAME),
    Column("duplicate_template", NAME),
    Column("supporter_confirm_template", NAME),
)

supporters = Table(
    "supporters",
    metadata,
    Column("id", Id, primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    Column("action_page_id", ForeignKey("action_pages.id"), nullable=False),
    # The fingerprint: the same for one address in one organisation, and of no use without the records.
    Column("contact_ref", String(64), nullable=False),
    Column("processing_status", String(16), nullable=False, server_default="new"),
    Column("dupe_rank", Integer),  # 0 = first of this contact in the campaign; NULL until accepted
    Column("with_consent", Boolean, nullable=False, server_default=false()),
    Column("opt_in", Boolean),
    Column("given_at", Moment),
    Column("email_status", String(32)),
    Column("email_status_changed_at", Moment),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("forgotten_at", Moment),
    Index("ix_supporters_contact", "campaign_id", "contact_ref"),
)

contacts = Table(  # personal data, apart from everything else: `flow forget` deletes the row
    "contacts",
    metadata,
    Column("supporter_id", ForeignKey("supporters.id"), primary_key=True),
    Column("email", Text),
    Column("first_name", Text),
    Column("area", String(16)),
    # The rest: a JSON object in the clear, or with a nonce the NaCl box of it (plumbing: `personalInfo`).
    Column("payload", Text, nullable=False),
    Column("nonce", String(64)),
    Column("encrypt_key", String(64)),
    Column("sign_key", String(64)),
    Index("ix_contacts_email", "email"),  # every new signature asks whose address it is
)

actions = Table(
    "actions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("supporter_id", ForeignKey("supporters.id")),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    Column("action_page_id", ForeignKey("action_pages.id"), nullable=False),
    Column("action_type", NAME, nullable=False),
    Column("processing_status", String(16), nullable=False, server_default="new"),
    Column("testing", Boolean, nullable=False, server_default=false()),
    Column("custom_fields", JSON, nullable=False),
    Column("donation", JSON(none_as_null=True)),  # as it came; what a payment provider said may be in it
    Column("tracking", JSON(none_as_null=True)),
    # What a caller named it: the same action submitted twice is one.
    Column("submission", NAME, unique=True),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("processed_at", Moment),
    Index("ix_actions_supporter", "supporter_id"),
    Index("ix_actions_status", "processing_status"),
)

outbox = Table(  # written with the status that it tells of, deleted when the broker has confirmed it
    "outbox",
    metadata,
    Column("id", Id, primary_key=True),
    Column("message_id", String(64), nullable=False, unique=True),
    Column("exchange", NAME, nullable=False),
    Column("routing_key", NAME, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("action_id", BigInteger),
    Column("supporter_id", BigInteger),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("claimed_until", Moment),  # a publisher holds it until then
    Column("refused", Text),  # why the broker would not take it; a person has to look
    Index("ix_outbox_claimed", "claimed_until"),
)

published = Table(  # that a message went out, which is not personal
    "published",
    metadata,
    Column("id", Id, primary_key=True),
    Column("message_id", String(64), nullable=False),
    Column("exchange", NAME, nullable=False),
    Column("routing_key", NAME, nullable=False),
    Column("action_id", BigInteger, index=True),
    Column("supporter_id", BigInteger, index=True),
    Column("published_at", Moment, nullable=False),
)

ledger = Table(  # what a pipeline did with a record; written before the acknowledgement
    "ledger",
    metadata,
    Column("id", Id, primary_key=True),
    Column("pipeline", NAME, nullable=False),
    Column("queue", NAME, nullable=False),
    Column("identity", LargeBinary(32), nullable=False),  # which delivery: the delivery memory's identity
    Column("record_id", NAME, index=True),
    Column("attempt", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Column("after", Integer),  # milliseconds that a retrying message waits at least
    Column("target_id", NAME),
    Column("at", Moment, nullable=False),
    Column("unsettled", Boolean, nullable=False, server_default=true()),
    Index("ix_ledger_unsettled", "queue", "identity"),
)

starts = Table(  # suspects that were started and came to no end yet
    "starts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("identity", LargeBinary(32), nullable=False, index=True),
    Column("at", Moment, nullable=False),
)

claims = Table(  # effects that must never happen twice
    "claims",
    metadata,
    Column("id", Id, primary_key=True),
    Column("pipeline", NAME, nullable=False),
    Column("key", NAME, nullable=False),
    Column("state", String(16), nullable=False),  # claimed, sending, done
    Column("holder", String(64), nullable=False),
    Column("until", Moment, nullable=False),
    Column("target_id", NAME),
    UniqueConstraint("pipeline", "key", name="uq_claims_key"),
)

placed_actions = (
    actions.join(action_pages, action_pages.c.id == actions.c.action_page_id)
    .join(campaigns, campaigns.c.id == actions.c.campaign_id)
    .join(organisations, organisations.c.id == actions.c.organisation_id)
    .outerjoin(supporters, supporters.c.id == actions.c.supporter_id)
)
"""Each action with its page, campaign and organisation, and with its supporter if it has one."""
