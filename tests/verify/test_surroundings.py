"""Which settings lead to the double."""

import os
from typing import ClassVar

import pytest

from flow.errors import ConfigError
from flow.message import Message
from flow.pipeline import Pipeline
from flow.schema import IdsMessage
from flow.settings import Secret, Settings
from flow.targets.forwarding import ForwardSettings as Forwarding
from flow.targets.mail import SupporterMailSettings
from flow.verify.surroundings import surroundings, within

DOUBLE = "http://127.0.0.1:99"


class SomeSettings(Settings):
    prefix: ClassVar = "SOME"
    url: str
    token: Secret
    test_url: str | None = None
    status_url: str = "https://status.example.org"
    store_url: str | None = None
    curl: str = "no address"
    port: int | None = None
    allow_private: bool = False


class MailSettings(SupporterMailSettings):
    link_url: str


class ForwardSettings(Forwarding):
    prefix: ClassVar = "ASK"
    link_url: str


class SqsSettings(Settings):
    prefix: ClassVar = "SQS"
    queue_url: str
    endpoint: str | None = None


class Sends(Pipeline[IdsMessage]):
    queue = "sends"
    settings: SqsSettings

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        """Nothing is run here."""


class Some(Pipeline[IdsMessage]):
    queue = "some"
    settings: SomeSettings

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        """Nothing is run here."""


class Mails(Pipeline[IdsMessage]):
    queue = "mails"
    settings: MailSettings

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        """Nothing is run here."""


class Asks(Pipeline[IdsMessage]):
    queue = "asks"
    settings: ForwardSettings

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        """Nothing is run here."""


class Bare(Pipeline[IdsMessage]):
    queue = "bare"

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        """Nothing is run here."""


def around(environment: dict[str, str], *named: str) -> dict[str, str]:
    found = surroundings(Some, environment, DOUBLE, 99, named)
    assert {name for name, value in found.environment.items() if value == DOUBLE} == set(found.redirected)
    return found.environment


def test_every_url_leads_to_the_double_and_never_to_the_real_target() -> None:
    environment = around({"SOME_URL": "https://real.example.org", "SOME_TEST_URL": "http://test.example.org"})

    assert environment["SOME_URL"] == environment["SOME_TEST_URL"] == environment["SOME_STATUS_URL"] == DOUBLE
    assert "SOME_STORE_URL" not in environment
    assert "SOME_CURL" not in environment


def test_a_url_in_a_file_is_replaced_as_well() -> None:
    environment = around({"SOME_URL_FILE": "/run/secrets/url"})

    assert environment["SOME_URL"] == DOUBLE
    assert "SOME_URL_FILE" not in environment


def test_another_kind_of_url_stays() -> None:
    environment = around({"SOME_STORE_URL": "postgresql://store"})

    assert environment["SOME_STORE_URL"] == "postgresql://store"


def test_the_double_may_be_called_and_a_missing_secret_is_made_up() -> None:
    environment = around({})

    assert environment["SOME_ALLOW_PRIVATE"] == "true"
    assert environment["SOME_PORT"] == "99"
    assert len(environment["SOME_TOKEN"]) >= 16
    assert around({"SOME_TOKEN": "given"})["SOME_TOKEN"] == "given"


def test_the_named_setting_and_no_other_gets_the_address() -> None:
    environment = around({"SOME_URL": "https://real.example.org"}, "SOME_CURL")

    assert environment["SOME_CURL"] == DOUBLE
    assert environment["SOME_URL"] == "https://real.example.org"


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="got SOME_ULR; did you mean SOME_URL"):
        surroundings(Some, {}, DOUBLE, 99, ["SOME_ULR"])
    with pytest.raises(ConfigError, match="Bare has no settings"):
        surroundings(Bare, {}, DOUBLE, 99, ["BARE_URL"])


def test_without_settings_nothing_leads_anywhere() -> None:
    assert surroundings(Bare, {"A": "b"}, DOUBLE, 99).redirected == []


def test_mails_go_to_the_double_and_to_no_real_server() -> None:
    real = {
        "MAIL_HOST": "smtp.example.org",
        "MAIL_PORT": "465",
        "MAIL_SECURITY": "tls",
        "MAIL_USER": "flow",
        "MAIL_PASSWORD_FILE": "/run/secrets/mail",
        "MAIL_SENDER": "River Club <club@example.org>",
    }
    found = surroundings(Mails, real, DOUBLE, 99, mail=25)
    bare = surroundings(Mails, {}, DOUBLE, 99, mail=25)

    assert found.redirected == bare.redirected == ["MAIL_HOST"]
    assert found.environment == {
        "MAIL_HOST": "127.0.0.1",
        "MAIL_PORT": "25",
        "MAIL_SECURITY": "none",
        "MAIL_RETRY_AFTER": "0.1",
        "MAIL_SENDER": "River Club <club@example.org>",
        "MAIL_LINK_URL": "https://verify.example.org",
    }
    assert bare.environment["MAIL_SENDER"] == "mail@example.org"


def test_who_is_asked_by_webhook_gets_no_mail() -> None:
    asked = surroundings(Asks, {"ASK_URL": "https://real.example.org"}, DOUBLE, 99, mail=25)
    mailed = surroundings(Asks, {}, DOUBLE, 99, mail=25)

    assert (asked.redirected, asked.environment["ASK_URL"]) == (["ASK_URL"], DOUBLE)
    assert "ASK_TO" not in asked.environment
    assert (mailed.redirected, mailed.environment["ASK_TO"]) == (["MAIL_HOST"], "moderators@example.org")
    assert len(mailed.environment["FLOW_LINK_SECRET"]) >= 32


def test_the_queue_of_sqs_keeps_its_name_and_its_credentials_go_nowhere() -> None:
    real = {
        "SQS_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/q",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_PROFILE": "real",
    }
    found = surroundings(Sends, real, DOUBLE, 99)

    assert (found.redirected, found.environment["SQS_ENDPOINT"]) == (["SQS_ENDPOINT"], DOUBLE)
    assert found.environment["SQS_QUEUE_URL"] == real["SQS_QUEUE_URL"]
    assert "real" not in found.environment.values()
    assert surroundings(Sends, {}, DOUBLE, 99).environment["SQS_QUEUE_URL"].startswith("https://sqs.")


def test_the_environment_is_as_it_was_after_it() -> None:
    before = dict(os.environ)
    with within({"FLOW_VERIFY_TEST": "x"}):
        during = dict(os.environ)

    assert during == {"FLOW_VERIFY_TEST": "x"}
    assert dict(os.environ) == before
