"""Donations of actions, and an index on the addresses of contacts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a column and an index."""
    op.add_column("actions", sa.Column("donation", sa.JSON(none_as_null=True), nullable=True))
    op.create_index("ix_contacts_email", "contacts", ["email"])
