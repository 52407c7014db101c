"""Which variables begin with FLOW_, and a word about those that are set and read by nothing."""

from collections.abc import Mapping

import click

from flow.misspelt import unread
from flow.pipeline import Pipeline
from flow.settings import variables

PREFIX = "FLOW_"
OF_TESTS = "FLOW_TEST_"
WITH_FILE = (
    "FLOW_AMQP_URL",
    "FLOW_API_TOKENS",
    "FLOW_DATABASE_URL",
    "FLOW_LINK_SECRET",
    "FLOW_MANAGEMENT_URL",
)
"""Those that may hold a secret: it may stand in the file that NAME_FILE names."""
NAMES = {
    *WITH_FILE,
    *(f"{name}_FILE" for name in WITH_FILE),
    "FLOW_CHECK_JSON",
    "FLOW_CONCURRENCY",
    "FLOW_DEAD_LETTER",
    "FLOW_DEAD_LIST_JSON",
    "FLOW_DEV",
    "FLOW_DRY_RUN",
    "FLOW_DUMP",
    "FLOW_DUMP_ONLY",
    "FLOW_ENV_FILE",
    "FLOW_FROM",
    "FLOW_INTERNAL_WORKER",
    "FLOW_LIMIT",
    "FLOW_LOG_FORMAT",
    "FLOW_LOG_LEVEL",
    "FLOW_NO_OPS",
    "FLOW_OPS_HOST",
    "FLOW_OPS_PORT",
    "FLOW_PREFETCH",
    "FLOW_QUEUE",
    "FLOW_RELOAD",
    "FLOW_RETRY_DELAY",
    "FLOW_SETUP_BIND",
    "FLOW_SETUP_ORG",
    "FLOW_SETUP_QUEUE",
    "FLOW_SHUTDOWN_TIMEOUT",
    "FLOW_STATE_DIR",
    "FLOW_STRICT",
    "FLOW_TRACEBACKS",
    "FLOW_TRACE_JSON",
    "FLOW_WAIT",
    "FLOW_WORKERS",
}
"""All but those that click derives from a command and its option, like FLOW_SERVE_PORT."""


def unknown(
    context: click.Context, environment: Mapping[str, str], *classes: type[Pipeline[object, object]]
) -> list[str]:
    """Return a sentence for each variable with FLOW_ that nothing reads; values are never told.

    Those of other commands, like FLOW_SERVE_PRT for `flow run`, are left to them; what the settings of
    *classes* read is known.
    """
    root, command = context.find_root().command, context.command
    assert isinstance(root, click.Group)
    own = f"{context.auto_envvar_prefix}_"
    others = {f"{PREFIX}{name.upper()}_" for name in root.list_commands(context)} - {own}
    known = NAMES | {f"{own}{option.name}".upper() for option in command.params if option.name is not None}
    for wanted in filter(None, (cls.settings_type() for cls in classes)):
        known |= variables(wanted)
    skipped = (OF_TESTS, *others)
    told = {name: text for name, text in environment.items() if not name.upper().startswith(skipped)}
    return list(unread(PREFIX, known, told))
