"""How the tables came to be: one file for each version, applied in order by alembic."""
