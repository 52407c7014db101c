"""Settings that lead a pipeline to the double of its target instead of the target itself."""

import os
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, get_type_hints

from flow.errors import ConfigError
from flow.links import SECRET
from flow.options import suggestion
from flow.pipeline import Pipeline
from flow.settings import Secret
from flow.targets.forwarding import ForwardSettings
from flow.targets.mail import MailSettings

HOST = "127.0.0.1"
HTTP = ("http://", "https://")
PRIVATE, PORT = "allow_private", "port"
"""What a `WebhookTarget` needs to know to call this machine."""
LINKS = ("link_url", "unsubscribe_url")
"""Addresses that stand in mails: nothing calls them."""
MADE_UP = "https://verify.example.org"
QUEUE, ENDPOINT = "queue_url", "endpoint"
"""What an `SqsTarget` has: the name of its queue, and where it is called if that is not at AWS."""
MADE_UP_QUEUE = "https://sqs.eu-central-1.amazonaws.com/000000000000/verify"
AWS = {
    "AWS_ACCESS_KEY_ID": "verify",
    "AWS_SECRET_ACCESS_KEY": "verify",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
MAIL_HOST = "MAIL_HOST"
SERVER = (MAIL_HOST, "MAIL_PORT", "MAIL_SECURITY", "MAIL_RETRY_AFTER", "MAIL_TIMEOUT")
OWN = ("MAIL_USER", "MAIL_PASSWORD", "MAIL_CAFILE", "AWS_SESSION_TOKEN", "AWS_PROFILE")
"""What a real target needs, and a double must not get."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The variables that a pipeline gets."""

    environment: dict[str, str]
    redirected: list[str]
    """The variables that lead to the double; empty: flow cannot see the target."""


def surroundings(
    cls: type[Pipeline[Any, Any]],
    environment: Mapping[str, str],
    address: str,
    port: int,
    named: Sequence[str] = (),
    mail: int = 0,
) -> Surroundings:
    """Return *environment* with *address* for the target: in the variables *named*, else in every URL.

    Mails of flow's own target go to the port *mail* of this machine, and calls of SQS to *address*. A URL is
    a setting called `url` or `…_url`, unless it is not set and need not be, or holds one of another kind
    than http, or stands in mails only. What must be set and is not is made up: secrets, links, a queue of
    SQS, and who gets or sends mails.

    Raises:
        ConfigError: no setting has a variable that is *named*.
    """
    wanted = cls.settings_type()
    if wanted is None:
        if named:
            raise ConfigError(f"{cls.__name__} has no settings, so --target-setting {named[0]} fits none")
        return Surroundings(dict(environment), [])
    known = {f"{wanted.prefix}_{one.name.upper()}": one for one in fields(wanted)}  # type: ignore[arg-type]  # made one by __init_subclass__
    for name in named:
        if name not in known:
            near = suggestion(name, known)
            raise ConfigError(f"--target-setting must be a variable of {wanted.__name__}, got {name}{near}")
    hints = get_type_hints(wanted)
    found = dict(environment)
    names = {field.name for field in known.values()}
    redirected = [
        variable
        for variable, field in known.items()
        if (
            variable in named
            if named
            else target(field.name, names) and leads_away(field, hints[field.name], variable, environment)
        )
    ]
    if not named and {QUEUE, ENDPOINT} <= names:
        redirected.append(f"{wanted.prefix}_{ENDPOINT.upper()}")
        found = without(found, OWN) | AWS
    for variable in redirected:
        found.pop(f"{variable}_FILE", None)
        found[variable] = address
    found = completed(found, known, hints, port if redirected else None)
    if issubclass(wanted, ForwardSettings):
        found = asking(found, wanted.prefix)
    if issubclass(wanted, MailSettings) or (issubclass(wanted, ForwardSettings) and not redirected):
        found = mailing(found, mail)
        redirected = [MAIL_HOST, *redirected]
    return Surroundings(found, redirected)


def completed(
    environment: Mapping[str, str],
    known: Mapping[str, Field[Any]],
    hints: Mapping[str, Any],
    port: int | None,
) -> dict[str, str]:
    """Return *environment* with what is missing, and what lets the double at *port* be called, if one is."""
    found = dict(environment)
    for variable, field in known.items():
        given = found.get(variable) or found.get(f"{variable}_FILE")
        if port is not None and field.name == PRIVATE:
            found[variable] = "true"
        elif port is not None and field.name == PORT:
            found[variable] = str(port)
        elif not given and bare(field) and field.name in (*LINKS, QUEUE) and hints[field.name] is str:
            found[variable] = MADE_UP_QUEUE if field.name == QUEUE else MADE_UP
        elif not given and hints[field.name] is Secret and bare(field):
            found[variable] = secrets.token_hex(16)
    return found


def target(name: str, names: Collection[str]) -> bool:
    """Tell whether the setting *name* beside *names* may be a target: links, and queues of SQS, are none."""
    return name not in LINKS and not (name == QUEUE and ENDPOINT in names)


def without(environment: Mapping[str, str], variables: Sequence[str]) -> dict[str, str]:
    """Return *environment* without *variables*, and without the files that hold them."""
    dropped = {*variables, *(f"{name}_FILE" for name in variables)}
    return {name: value for name, value in environment.items() if name not in dropped}


def asking(environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return *environment* with what questions need: a secret for links, and somebody who is asked."""
    found = dict(environment)
    if not found.get(SECRET) and not found.get(f"{SECRET}_FILE"):
        found[SECRET] = secrets.token_urlsafe(32)
    ways = [f"{prefix}_{name}" for name in ("TO", "TO_FILE", "URL", "URL_FILE")]
    if not any(found.get(way) for way in ways):
        found[ways[0]] = "moderators@example.org"
    return found


def mailing(environment: Mapping[str, str], port: int) -> dict[str, str]:
    """Return *environment* with the mail server at *port* of this machine, and a sender."""
    found = without(environment, (*OWN, *SERVER)) | {
        MAIL_HOST: HOST,
        "MAIL_PORT": str(port),
        "MAIL_SECURITY": "none",
        "MAIL_RETRY_AFTER": "0.1",
    }
    if not found.get("MAIL_SENDER") and not found.get("MAIL_SENDER_FILE"):
        found["MAIL_SENDER"] = "mail@example.org"
    return found


@contextmanager
def within(environment: Mapping[str, str]) -> Iterator[None]:
    """Let what reads the environment of the process find *environment*; at the end all is as it was."""
    before = dict(os.environ)
    replace(environment)
    try:
        yield
    finally:
        replace(before)


def replace(environment: Mapping[str, str]) -> None:
    """Make *environment* that of the process."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def leads_away(field: Field[Any], hint: Any, variable: str, environment: Mapping[str, str]) -> bool:
    """Tell whether *field* is the URL of an HTTP target that would be called."""
    if field.name != "url" and not field.name.endswith("_url"):
        return False
    if environment.get(f"{variable}_FILE"):
        return True
    value = environment.get(variable) or (None if bare(field) else field.default)
    if isinstance(value, Secret):
        value = value.reveal()
    if not value:
        return bare(field) and hint in (str, Secret)
    return str(value).startswith(HTTP)


def bare(field: Field[Any]) -> bool:
    """Tell whether *field* has no default."""
    return field.default is MISSING and field.default_factory is MISSING
