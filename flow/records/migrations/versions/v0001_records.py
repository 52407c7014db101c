"""Organisations, campaigns, action pages, supporters with their contacts, and actions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)
NAME = sa.String(255)


def upgrade() -> None:
    """Make the tables."""
    organisations()
    campaigns()
    action_pages()
    supporters()
    contacts()
    actions()


def organisations() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("supporter_confirm", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("action_confirm", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("custom_supporter_confirm", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("custom_delivery", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=True),
        sa.Column("mail_from", NAME, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organisations"),
        sa.UniqueConstraint("name", name="uq_organisations_name"),
    )


def campaigns() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", ID, nullable=False),
        sa.Column("organisation_id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("external_id", sa.BigInteger(), nullable=True),
        sa.Column("contact_schema", sa.String(length=32), server_default="basic", nullable=False),
        sa.Column("supporter_confirm", sa.Boolean(), nullable=True),
        sa.Column("action_confirm", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_campaigns_organisation_id_organisations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_campaigns"),
        sa.UniqueConstraint("name", name="uq_campaigns_name"),
    )


def action_pages() -> None:
    op.create_table(
        "action_pages",
        sa.Column("id", ID, nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("organisation_id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("locale", sa.String(length=16), server_default="en", nullable=False),
        sa.Column("thank_you_template", NAME, nullable=True),
        sa.Column("duplicate_template", NAME, nullable=True),
        sa.Column("supporter_confirm_template", NAME, nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_action_pages_campaign_id_campaigns"
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_action_pages_organisation_id_organisations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_action_pages"),
        sa.UniqueConstraint("name", name="uq_action_pages_name"),
    )


def supporters() -> None:
    op.create_table(
        "supporters",
        sa.Column("id", ID, nullable=False),
        sa.Column("organisation_id", ID, nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("action_page_id", ID, nullable=False),
        sa.Column("contact_ref", sa.String(length=64), nullable=False),
        sa.Column("processing_status", sa.String(length=16), server_default="new", nullable=False),
        sa.Column("dupe_rank", sa.Integer(), nullable=True),
        sa.Column("with_consent", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("opt_in", sa.Boolean(), nullable=True),
        sa.Column("given_at", MOMENT, nullable=True),
        sa.Column("email_status", sa.String(length=32), nullable=True),
        sa.Column("email_status_changed_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.func.now(), nullable=False),
        sa.Column("forgotten_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["action_page_id"], ["action_pages.id"], name="fk_supporters_action_page_id_action_pages"
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_supporters_campaign_id_campaigns"
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_supporters_organisation_id_organisations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_supporters"),
    )
    op.create_index("ix_supporters_contact", "supporters", ["campaign_id", "contact_ref"])


def contacts() -> None:
    op.create_table(
        "contacts",
        sa.Column("supporter_id", ID, nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("first_name", sa.Text(), nullable=True),
        sa.Column("area", sa.String(length=16), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=True),
        sa.Column("encrypt_key", sa.String(length=64), nullable=True),
        sa.Column("sign_key", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["supporter_id"], ["supporters.id"], name="fk_contacts_supporter_id_supporters"
        ),
        sa.PrimaryKeyConstraint("supporter_id", name="pk_contacts"),
    )


def actions() -> None:
    op.create_table(
        "actions",
        sa.Column("id", ID, nullable=False),
        sa.Column("supporter_id", ID, nullable=True),
        sa.Column("organisation_id", ID, nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("action_page_id", ID, nullable=False),
        sa.Column("action_type", NAME, nullable=False),
        sa.Column("processing_status", sa.String(length=16), server_default="new", nullable=False),
        sa.Column("testing", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("custom_fields", sa.JSON(), nullable=False),
        sa.Column("tracking", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("submission", NAME, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.func.now(), nullable=False),
        sa.Column("processed_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["action_page_id"], ["action_pages.id"], name="fk_actions_action_page_id_action_pages"
        ),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_actions_campaign_id_campaigns"),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name="fk_actions_organisation_id_organisations"
        ),
        sa.ForeignKeyConstraint(
            ["supporter_id"], ["supporters.id"], name="fk_actions_supporter_id_supporters"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_actions"),
        sa.UniqueConstraint("submission", name="uq_actions_submission"),
    )
    op.create_index("ix_actions_status", "actions", ["processing_status"])
    op.create_index("ix_actions_supporter", "actions", ["supporter_id"])
