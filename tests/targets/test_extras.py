"""A library that is not installed is told with the extra that brings it, before anything is connected."""

import sys
from collections.abc import Callable

import pytest

from flow.errors import ConfigError
from flow.settings import Secret
from flow.targets.http import HttpTarget
from flow.targets.mail_server import MailServer
from flow.targets.sqs import SqsTarget
from flow.targets.templates import Templates
from flow.targets.webhook import WebhookTarget

QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/signatures"


@pytest.mark.parametrize(
    ("missing", "make", "sentence"),
    [
        (
            "aiobotocore.session",
            lambda: SqsTarget(QUEUE_URL),
            "aiobotocore is needed for SQS: install proca-flow[sqs]",
        ),
        (
            "aiosmtplib",
            lambda: MailServer(host="mail.example.org"),
            "aiosmtplib is needed to send mail: install proca-flow[mail]",
        ),
        ("jinja2", Templates, "Jinja2 is needed to write mails: install proca-flow[mail]"),
        (
            "httpx2",
            lambda: HttpTarget("the CRM", "https://crm.example.org"),
            "httpx2 is needed to call the CRM: install proca-flow[http]",
        ),
        (
            "httpx2",
            lambda: WebhookTarget("the webhook", "https://hooks.example.org", Secret("x" * 16)),
            "httpx2 is needed to call the webhook: install proca-flow[http]",
        ),
    ],
)
def test_a_missing_library_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str, make: Callable[[], object], sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ConfigError) as refused:
        make()

    assert str(refused.value) == sentence
