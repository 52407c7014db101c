"""What is known without a broker."""

from typing import Any, ClassVar, Literal

import msgspec
import pytest

from flow.checking.declared import loop_of, memory_of, options_of, settings_of
from flow.checking.finding import Finding
from flow.checking.keeping import Keeping
from flow.claim import Claim
from flow.message import Message
from flow.pipeline import Pipeline
from flow.settings import Secret, Settings


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

    assert found == Finding("ok", "Mine: settings from MINE_URL, MINE_TOKEN")


@pytest.mark.parametrize("canary", ["canary", "ca'nary", "ca\"n'ary", "ca\\'nary; x"])
def test_values_that_are_wrong_are_not_told(canary: str) -> None:
    found = settings_of(Mine, {"MINE_MODE": canary})

    needs = "MineSettings needs MINE_URL and MINE_TOKEN (or MINE_TOKEN_FILE) to be set"
    assert found == Finding("wrong", f"{needs}; MINE_MODE must be one of a, b")


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
