"""The outbox, what was published, the ledger, starts and claims."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)
NAME = sa.String(255)


def upgrade() -> None:
    """Make the tables."""
    outbox()
    published()
    ledger()
    starts()
    claims()


def outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", ID, nullable=False),
        sa.Column("message_id", sa.String(length=64), nullable=False),
        sa.Column("exchange", NAME, nullable=False),
        sa.Column("routing_key", NAME, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("action_id", sa.BigInteger(), nullable=True),
        sa.Column("supporter_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.func.now(), nullable=False),
        sa.Column("claimed_until", MOMENT, nullable=True),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("message_id", name="uq_outbox_message_id"),
    )
    op.create_index("ix_outbox_claimed", "outbox", ["claimed_until"])


def published() -> None:
    op.create_table(
        "published",
        sa.Column("id", ID, nullable=False),
        sa.Column("message_id", sa.String(length=64), nullable=False),
        sa.Column("exchange", NAME, nullable=False),
        sa.Column("routing_key", NAME, nullable=False),
        sa.Column("action_id", sa.BigInteger(), nullable=True),
        sa.Column("supporter_id", sa.BigInteger(), nullable=True),
        sa.Column("published_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_published"),
    )
    op.create_index("ix_published_action_id", "published", ["action_id"])
    op.create_index("ix_published_supporter_id", "published", ["supporter_id"])


def ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", ID, nullable=False),
        sa.Column("pipeline", NAME, nullable=False),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("identity", sa.LargeBinary(length=32), nullable=False),
        sa.Column("record_id", NAME, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("after", sa.Integer(), nullable=True),
        sa.Column("target_id", NAME, nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("unsettled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
    )
    op.create_index("ix_ledger_record_id", "ledger", ["record_id"])
    op.create_index("ix_ledger_unsettled", "ledger", ["queue", "identity"])


def starts() -> None:
    op.create_table(
        "starts",
        sa.Column("id", ID, nullable=False),
        sa.Column("identity", sa.LargeBinary(length=32), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_starts"),
    )
    op.create_index("ix_starts_identity", "starts", ["identity"])


def claims() -> None:
    op.create_table(
        "claims",
        sa.Column("id", ID, nullable=False),
        sa.Column("pipeline", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.Column("target_id", NAME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_claims"),
        sa.UniqueConstraint("pipeline", "key", name="uq_claims_key"),
    )
