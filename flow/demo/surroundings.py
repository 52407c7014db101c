"""What the process gets from its environment while the story is told: nothing of the user's own."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flow.demo.people import MODERATORS
from flow.demo.sqs_server import KEY, REGION, SECRET
from flow.records.url import VARIABLE

FOREIGN = ("AWS_", "CRM_", "MAIL_", "SQS_", "MODERATE_", "FLOW_DATABASE_URL", "FLOW_LINK_SECRET")


@contextmanager
def surroundings(database: str, secret: str) -> Iterator[None]:
    """Set what pipelines read from the environment; at the end everything is as it was."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(FOREIGN):
            del os.environ[name]
    os.environ |= {
        VARIABLE: database,
        "FLOW_LINK_SECRET": secret,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    try:
        yield
    finally:
        for name in set(os.environ) - before.keys():
            del os.environ[name]
        os.environ |= before


@contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """Return the folder for records and mails: *kept*, else a new one that is deleted at the end."""
    if kept is None:
        with TemporaryDirectory(prefix="flow-demo-") as made:
            yield Path(made)
    else:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield kept


def settings(*, crm: str, token: str, mail: int, serve: str, sqs: str, queue: str) -> Mapping[str, str]:
    """Return the settings of the pipelines: where everything is."""
    return {
        "CRM_URL": crm,
        "CRM_TOKEN": token,
        "MAIL_HOST": "127.0.0.1",
        "MAIL_PORT": str(mail),
        "MAIL_SECURITY": "none",
        "MAIL_SENDER": "mail@example.org",
        "MAIL_LINK_URL": serve,
        "MAIL_UNSUBSCRIBE_ADDRESS": "leave@example.org",
        "MAIL_TIMEOUT": "5",
        "MAIL_RETRY_AFTER": "1",
        "MODERATE_TO": MODERATORS,
        "MODERATE_LINK_URL": serve,
        "SQS_QUEUE_URL": sqs + queue,
        "SQS_ENDPOINT": sqs,
    }
