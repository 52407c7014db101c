"""What alembic runs: the migrations, on the connection and in the transaction that flow hands on."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,  # SQLite cannot change a column otherwise
    transactional_ddl=True,
)
context.run_migrations()
