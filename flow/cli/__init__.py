"""The `flow` command; its commands are imported when they are used."""

from importlib import import_module

import click

from flow.cli.envfile import env_file
from flow.cli.errors import Guarded
from flow.cli.logs import configure
from flow.errors import ConfigError

COMMANDS = {
    "run": ("flow.cli.run:run", "Consume a queue with a pipeline until stopped."),
    "check": ("flow.cli.check:check", "Tell what is wrong before anything is consumed."),
    "verify": (
        "flow.cli.verify:verify",
        "Run a pipeline under faults, and see whether it keeps its messages.",
    ),
    "demo": ("flow.cli.demo:demo", "Show all of it at work on this machine: nothing else is needed."),
    "dev": ("flow.cli.dev:dev", "Run a broker in memory for development."),
    "setup": ("flow.cli.setup:setup", "Make the exchanges, the retry loop, the park and queues."),
    "org": ("flow.cli.org:org", "Give an organisation its queues, or take them away."),
    "push": ("flow.cli.push:push", "Publish JSON; returns once the broker has confirmed it."),
    "submit": (
        "flow.cli.submit:submit",
        "Store signatures from lines of JSON, and publish what comes of them.",
    ),
    "serve": ("flow.cli.serve:serve", "Answer the links by which people accept or reject."),
    "sweep": ("flow.cli.sweep:sweep", "Publish the outbox, and settle what a crash left behind."),
    "records": ("flow.cli.records:records", "Make, check and prune the tables of the records."),
    "trace": ("flow.cli.trace:trace", "Tell the whole story of one signature."),
    "mail": ("flow.cli.mail:mail", "Show a mail as somebody would get it, without sending it."),
    "forget": ("flow.cli.forget:forget_", "Erase a person's data from the records."),
    "dead": ("flow.cli.dead:dead", "List, show, replay, delete and export parked messages."),
}

EXTRAS = {"sqlalchemy": "sql"}
"""The extra that brings a library which a command cannot do without."""


class Commands(Guarded):
    """Finds the commands by name, so that each start imports only what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the list above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command called *cmd_name*."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            extra = f"install proca-flow[{EXTRAS[error.name]}]"
            raise ConfigError(f"flow {cmd_name} needs {error.name}: {extra}") from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands, context_settings={"auto_envvar_prefix": "FLOW", "help_option_names": ["-h", "--help"]}
)
@env_file(variable="FLOW_ENV_FILE")
@click.version_option(package_name="proca-flow", prog_name="flow", allow_from_autoenv=False)
def main() -> None:
    """Consume RabbitMQ queues in keyed batches: nothing lost, nothing silent.

    Options can be given as environment variables: `flow setup --queue-type` is FLOW_SETUP_QUEUE_TYPE.
    """
    configure("console", "warning", tracebacks=False)  # a command may want another form
