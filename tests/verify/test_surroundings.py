"""Which settings lead to the double."""

from typing import ClassVar

import pytest

from flow.errors import ConfigError
from flow.message import Message
from flow.pipeline import Pipeline
from flow.schema import IdsMessage
from flow.settings import Secret, Settings
from flow.verify.surroundings import surroundings

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


class Some(Pipeline[IdsMessage]):
    queue = "some"
    settings: SomeSettings

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
