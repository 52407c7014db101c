"""Names, values and callbacks in the body of a pipeline class, and the sentence that answers each mistake."""

import functools
import operator
from contextlib import asynccontextmanager, contextmanager
from types import new_class
from typing import Any

import pytest

from flow.batching import Batching
from flow.errors import ConfigError
from flow.message import Message
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries


def declared(**body: Any) -> type[Pipeline[Any]]:
    """Return `class Crm(Pipeline)` with *body*."""
    return new_class("Crm", (Pipeline,), exec_body=lambda space: space.update(body))


def refused(**body: Any) -> str:
    """Return the sentence that answers `class Crm(Pipeline)` with *body*."""
    with pytest.raises(ConfigError) as caught:
        declared(**body)
    return str(caught.value)


def nothing(self: object, message: object) -> None:
    """Do as a callback with one parameter does."""


async def nothing_async(self: object, message: object) -> None:
    """Do as an asynchronous callback does."""


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("queue", 1, "must be the name of a queue, got 1"),
        ("queue", "", "must be the name of a queue, got ''"),
        ("queue", "a\nb", "must be the name of a queue, got 'a\\nb'"),
        ("queue", "ä" * 128, "must have at most 255 bytes, got 256"),
        ("name", 1, "must be of 1 to 100 letters, digits, dots, dashes or underscores, got 1"),
        ("name", "a b", "must be of 1 to 100 letters, digits, dots, dashes or underscores, got 'a b'"),
        ("concurrency", 0, "must be a whole number of at least 1, got 0"),
        ("concurrency", 2.5, "must be a whole number of at least 1, got 2.5"),
        ("concurrency", True, "must be a whole number of at least 1, got True"),
        ("batching", 100, "must be a Batching or several by name, got 100"),
        ("batching", Batching, "must be a Batching or several by name, got the class Batching"),
        ("batching", {}, "must name at least one Batching, got an empty mapping"),
        ("batching", {"thank-you": Batching()}, "must have identifiers as names, got 'thank-you'"),
        ("batching", {1: Batching()}, "must have identifiers as names, got 1"),
        ("retries", 5, "must be a Retries, got 5"),
        ("retries", nothing, "must be a Retries, got a function"),
        ("rate_limit", 10, "must be a RateLimit or None, got 10"),
        ("prefetch", 0, "must be a whole number of at least 1, got 0"),
        ("prefetch", 70000, "must be at most 65535, got 70000"),
        ("handler_timeout", None, "must be a number of seconds above 0, got None"),
        ("handler_timeout", 0, "must be a number of seconds above 0, got 0"),
        ("batch_timeout", "60", "must be a number of seconds above 0, got '60'"),
        ("retry_delay", -1, "must be a number of seconds above 0, got -1"),
        ("max_body", 0, "must be a whole number of at least 1, got 0"),
        ("park", "spool", "must be 'queue' or 'loop' or 'spool:FOLDER', got 'spool'"),
        ("park", "spool:", "must be 'queue' or 'loop' or 'spool:FOLDER', got 'spool:'"),
        ("park", None, "must be 'queue' or 'loop' or 'spool:FOLDER', got None"),
        ("blocking", 1, "must be True or False, got 1"),
        ("prepare_size", 0, "must be a whole number of at least 1, got 0"),
        ("dead_letter", True, "must be 'assume' or 'refuse' or None, got True"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(option: str, value: object, rule: str) -> None:
    """A02, A21: wrong types and impossible limits are found when the class is made."""
    assert refused(**{option: value}) == f"Crm.{option} {rule}"


def test_a_wrong_batching_is_told_with_its_name() -> None:
    """A01: the path to the wrong place is in the sentence."""
    wrong = {"thank_you": Batching(), "sqs": {"size": 10}}

    assert refused(batching=wrong) == "Crm.batching['sqs'] must be a Batching, got a dict"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("concurency", "concurrency"),
        ("batchng", "batching"),
        ("rate_limits", "rate_limit"),
        ("handler_timout", "handler_timeout"),
        ("dead_leter", "dead_letter"),
        ("handle_mesage", "handle_message"),
        ("handle_messages", "handle_message"),
        ("handle_batches", "handle_batch"),
        ("handle_failure", "handle_failed"),
        ("batch_keys", "batch_key"),
        ("life_span", "lifespan"),
        ("setings", "settings"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_right_one(name: str, meant: str) -> None:
    """A01: a misspelt option or callback would have no effect, silently."""
    sentence = f"Crm.{name} is no option and no callback of a pipeline; did you mean {meant}?"

    assert refused(**{name: nothing}) == sentence
    assert refused(__annotations__={name: int}) == sentence


def test_an_option_under_another_name_is_refused() -> None:
    assert refused(retry=Retries()).endswith("did you mean retries?")
    assert refused(limit=RateLimit(calls=1)).endswith("did you mean rate_limit?")


def test_names_of_the_user_are_left_alone() -> None:
    names = ["client", "batch", "message", "url", "cache", "handle_event", "timeout", "_queue", "__slots__"]

    cls = declared(**dict.fromkeys(names, ()))

    assert cls.__dict__["batch"] == ()


def test_a_claim_is_a_claim() -> None:
    assert refused(claim=nothing) == "Crm.claim must be a Claim or None, got a function"


@pytest.mark.parametrize("name", ["check", "batchings", "granted", "configured", "warnings"])
def test_names_that_flow_uses_are_refused(name: str) -> None:
    assert refused(**{name: nothing}) == f"Crm.{name} needs another name: flow uses {name} itself"


class Callable_:
    """Can be called, without being a function."""

    def __call__(self, message: Message[Any]) -> int:
        return 1


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def yields(self: object) -> Any:
    """Do as a generator does."""
    yield


async def yields_async(self: object) -> Any:
    """Do as an asynchronous generator does."""
    yield


async def batch_yields(self: object, batch: object) -> Any:
    """Do as an asynchronous generator does."""
    yield


async def opens(self: object) -> None:
    """Do as a coroutine function does."""


@pytest.mark.parametrize(
    ("callback", "value", "rule"),
    [
        ("handle_batch", 5, "must be a function, got 5"),
        ("handle_batch", None, "must be a function, got None"),
        ("batch_key", str, "must be a function, got the class str"),
        ("handle_message", opens, "must take (self, message), but takes (self)"),
        (
            "handle_message",
            staticmethod(nothing),
            "must take (message), but takes (self, message)",
        ),
        ("batch_key", lambda message: 1, "must take (self, message), but takes (message)"),
        (
            "handle_failed",
            nothing_async,
            "must take (self, message, outcome, reason), but takes (self, message)",
        ),
        (
            "handle_failed",
            lambda self, message, outcome, reason: None,
            "must be an async def, got a plain def",
        ),
        ("batch_key", nothing_async, "must be a plain def, got an async def"),
        ("batcher", nothing_async, "must be a plain def, got an async def"),
        ("handle_batch", batch_yields, "must return its result, but it yields"),
        ("lifespan", yields_async, "must be decorated with @asynccontextmanager"),
        (
            "lifespan",
            contextmanager(yields),
            "must be an async def that yields once, under @asynccontextmanager",
        ),
        ("lifespan", opens, "must be an async def that yields once, under @asynccontextmanager"),
    ],
)
def test_a_callback_of_the_wrong_kind_is_refused(callback: str, value: object, rule: str) -> None:
    assert refused(**{callback: value}) == f"Crm.{callback} {rule}"


@pytest.mark.parametrize(
    ("callback", "value"),
    [
        ("batch_key", operator.attrgetter("body.page")),
        ("batch_key", Callable_()),
        ("batch_key", staticmethod(lambda message: 1)),
        ("batch_key", classmethod(lambda cls, message: 1)),
        ("batch_key", lambda self, message, more=None: 1),
        ("handle_message", lambda *arguments: 1),
        ("handle_message", wrapped(nothing_async)),
        ("handle_message", functools.partial(nothing, None)),
        ("handle_batch", nothing_async),
        ("lifespan", asynccontextmanager(yields_async)),
        ("lifespan", lambda self: asynccontextmanager(yields_async)(self)),
    ],
)
def test_a_callback_may_be_anything_that_can_be_called_so(callback: str, value: object) -> None:
    declared(**{callback: value})
