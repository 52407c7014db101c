"""What is known without a broker."""

import os
from typing import Any, ClassVar, Literal

import msgspec
import pytest

from flow.checking.declared import loop_of, memory_of, options_of, settings_of, strangers_of
from flow.checking.finding import Finding
from flow.checking.keeping import Keeping
from flow.claim import Claim
from flow.errors import ConfigError
from flow.message import Message
from flow.pipeline import Pipeline
from flow.settings import Secret, Settings
from flow.target import load


class Number(msgspec.Struct):
    n: int


class MineSettings(Settings):
    prefix: ClassVar = "MINE"
    url: str
    token: Secret
    mode: Literal["a", "b"] = "a"


class Mine(Pipeline[Number]):
    queue = "acme.crm"
    settings: MineSettings

    def handle_message(self, message: Message[Number]) -> None:
        """Never called."""


def derived(**options: Any) -> type[Pipeline[Any]]:
    _, made = options_of(Mine, options, strict=False)
    assert made is not None
    return made


def test_settings_are_told_by_name_only() -> None:
    found = settings_of(Mine, {"MINE_URL": "canary", "MINE_TOKEN": "canary"})

    assert found == Finding("ok", "Mine: settings from MINE_TOKEN, MINE_URL")


@pytest.mark.parametrize("canary", ["canary", "ca'nary", "ca\"n'ary", "ca\\'nary; x"])
def test_values_that_are_wrong_are_not_told(canary: str) -> None:
    found = settings_of(Mine, {"MINE_MODE": canary})

    needs = "MineSettings needs MINE_URL and MINE_TOKEN (or MINE_TOKEN_FILE) to be set"
    assert found == Finding("wrong", f"{needs}; MINE_MODE must be one of a, b")


def test_a_variable_that_no_setting_reads_is_a_caution_that_names_it() -> None:
    found = strangers_of(Mine, {"MINE_URL": "u", "MINE_COLOUR": "canary", "MINE_TOKN": "canary"})

    assert found == [
        Finding("caution", "MINE_COLOUR is set but not known: correct its name, or remove it"),
        Finding("caution", "MINE_TOKN is set but not known (did you mean MINE_TOKEN?)"),
    ]


def test_a_warning_is_a_caution_and_wrong_when_strict() -> None:
    states = {
        strict: [finding.state for finding in options_of(Mine, {"prefetch": 5}, strict=strict)[0]]
        for strict in (False, True)
    }

    assert states == {False: ["ok", "caution"], True: ["ok", "wrong"]}


def test_an_order_by_keys_is_not_for_several_workers() -> None:
    class Ordered(Mine):
        def partition_key(self, message: Message[Number]) -> int:
            return 1

    alone, made = options_of(Ordered, {}, workers=1, strict=False)
    [shared], refused = options_of(Ordered, {}, workers=2, strict=False)

    assert made is not None
    assert {finding.state for finding in alone} == {"ok"}
    assert refused is None
    assert shared.state == "wrong"
    assert shared.text.startswith("--workers 2 would break the order that Ordered.partition_key promises")


def test_an_option_that_is_wrong_is_told() -> None:
    found, made = options_of(Mine, {"concurrency": 0}, strict=False)

    assert made is None
    assert [finding.state for finding in found] == ["wrong"]
    assert "concurrency" in found[0].text


@pytest.mark.parametrize(
    ("options", "state", "words"),
    [
        ({}, "ok", "by its name"),
        ({"queue": "mine"}, "caution", "nothing tells"),
        ({"queue": "mine", "dead_letter": "assume"}, "ok", "dead-letter exchange of mine"),
        ({"dead_letter": "refuse"}, "ok", "held and made here"),
        ({"queue": "cus.7.deliver"}, "ok", "by its name"),
    ],
)
def test_the_way_of_retries_follows_from_name_and_class(
    options: dict[str, str], state: str, words: str
) -> None:
    found = loop_of(derived(**options))

    assert found.state == state
    assert words in found.text


@pytest.mark.parametrize(
    ("consumers", "states"),
    [(0, ["ok", "caution"]), (2, ["ok", "caution", "caution"]), (None, ["ok", "not checked", "caution"])],
)
def test_memory_that_workers_do_not_share_is_told(consumers: int | None, states: list[str]) -> None:
    assert [finding.state for finding in memory_of(Mine, consumers, Keeping())] == states


def test_with_a_database_workers_share_what_was_done() -> None:
    found = memory_of(Mine, None, Keeping(database="kept"))

    assert [finding.state for finding in found] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("unknown", "database", "state"),
    [
        ("park", "none", "wrong"),
        ("park", "kept", "ok"),
        ("park", "passing", "caution"),
        ("again", "none", "caution"),
        ("again", "kept", "ok"),
        ("again", "passing", "caution"),
    ],
)
def test_what_a_claim_protects_from_is_told(unknown: Any, database: Any, state: str) -> None:
    claim = Claim(key=lambda message: str(message.body.n), unknown=unknown)

    found = memory_of(derived(claim=claim), 0, Keeping(database=database))

    assert found[0].state == state
    assert "claim" in found[0].text


def test_a_place_for_the_state_guards_against_crash_loops() -> None:
    found = memory_of(Mine, 0, Keeping(folder="kept"))

    assert [finding.state for finding in found] == ["ok", "ok"]


@pytest.mark.parametrize("keeping", [Keeping(database="unknown"), Keeping(folder="unknown")])
def test_what_depends_on_what_was_not_found_usable_is_not_ok(keeping: Keeping) -> None:
    found = memory_of(derived(claim=Claim(key=lambda message: "k", unknown="again")), 0, keeping)

    assert "not checked" in [finding.state for finding in found]
    assert [one.text for one in found if one.state == "ok" and "crash" in one.text] == []


MAIL = {
    "MAIL_HOST": "mail.example.org",
    "MAIL_SENDER": "mail@example.org",
    "MAIL_LINK_URL": "https://a.example",
}
HOOK = {"WEBHOOK_URL": "https://a.example/hook", "WEBHOOK_SECRETS": "0123456789abcdef"}
CRM = {"CRM_URL": "https://a.example", "CRM_TOKEN": "t"}
SQS = {"SQS_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/name"}
MODERATE = {**MAIL, "MODERATE_LINK_URL": "https://a.example", "MODERATE_TO": "we@example.org"}


@pytest.mark.parametrize(
    ("target", "good", "bad", "sentence"),
    [
        ("confirm", MAIL, {"MAIL_SENDER": "canary"}, "MAIL_SENDER must be an address, or a name and"),
        ("confirm", MAIL, {"MAIL_LINK_URL": "canary"}, "MAIL_LINK_URL must be an address that begins with"),
        ("confirm", MAIL, {"MAIL_HOST": "mail canary"}, "the mail server must be the name of a host"),
        ("confirm", MAIL, {"MAIL_TIMEOUT": "99"}, "the timeout of the mail server must be at most 20 s"),
        ("confirm", MAIL, {"MAIL_USER": "canary"}, "the mail server needs both a user and a password"),
        ("confirm", MAIL, {"MAIL_TEMPLATES": "/nowhere"}, "the folder of templates /nowhere is not there"),
        ("confirm", MAIL, {"MAIL_BOUNCE_ADDRESS": "canary"}, "MAIL_BOUNCE_ADDRESS must be an address like"),
        ("confirm", MAIL, {"MAIL_RATE": "0"}, "ConfirmSettings: MAIL_RATE must be a number above 0"),
        ("thank_you", MAIL, {"MAIL_UNSUBSCRIBE_URL": "canary"}, "MAIL_UNSUBSCRIBE_URL must be an address"),
        ("thank_you", MAIL, {"MAIL_TEST_ADDRESS": "canary"}, "MAIL_TEST_ADDRESS must be an address like"),
        (
            "thank_you",
            MAIL,
            {"MAIL_RETRY_AFTER": "0"},
            "MAIL_RETRY_AFTER must be a number of seconds above 0",
        ),
        ("crm", CRM, {"CRM_URL": "canary"}, "the URL of the CRM must begin with https:// or http:// and a"),
        ("crm", CRM, {"CRM_TEST_URL": "canary"}, "the URL of the test CRM must begin with https://"),
        ("crm", CRM, {"CRM_CAFILE": "/nowhere"}, "the file of authorities for the CRM cannot be read"),
        ("webhook", HOOK, {"WEBHOOK_URL": "http://a"}, "the URL of the webhook must begin with https://"),
        ("webhook", HOOK, {"WEBHOOK_SECRETS": "canary"}, "each secret of the webhook must have at least 16"),
        ("sqs", SQS, {"SQS_QUEUE_URL": "canary"}, "the URL of the SQS queue must begin with https://"),
        ("sqs", SQS, {"SQS_LIMIT": "0"}, "the limit of SQS must be a whole number of at least 1"),
        ("moderate", MODERATE, {"MODERATE_TO": "canary"}, "MODERATE_TO must be an address like"),
        ("moderate", MODERATE, {"MODERATE_LINK_URL": "canary"}, "MODERATE_LINK_URL must be an address that"),
        ("moderate", MODERATE, {"MAIL_SENDER": "canary"}, "MAIL_SENDER must be an address, or a name and"),
        ("moderate", MODERATE, {"FLOW_LINK_SECRET": "canary"}, "the secret that signs links must have at"),
    ],
)
def test_a_value_that_a_run_refuses_is_wrong_in_the_same_words(
    target: str, good: dict[str, str], bad: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cls] = load(f"pipelines.{target}")
    monkeypatch.setattr(os, "environ", good | bad)
    found = settings_of(cls, os.environ)
    with pytest.raises(ConfigError) as caught:
        cls.configured(os.environ)
    monkeypatch.setattr(os, "environ", good)
    right = settings_of(cls, os.environ)

    assert right.state == "ok"
    assert (found.state, found.text[: len(sentence)]) == ("wrong", sentence)
    assert str(caught.value).startswith(sentence)
    assert "canary" not in found.text
