"""What a pipeline class may declare, and the sentence that answers each mistake."""

import subprocess
import sys
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from types import new_class
from typing import Annotated, Any, ClassVar, Generic

import msgspec
import pytest
from typing_extensions import TypeAliasType, TypeVar

from flow.batch import Batch
from flow.batching import Batching
from flow.errors import ConfigError
from flow.message import Message
from flow.outcome import Outcome
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries
from flow.settings import Secret, Settings
from tests.messages import MemoryOrigin


class Action(msgspec.Struct):
    page: int


class Supporter(msgspec.Struct):
    email: str


class Contact(msgspec.Struct):
    name: str


class CrmSettings(Settings):
    prefix: ClassVar = "CRM"
    url: str
    token: Secret


class Crm(Pipeline[Action, Contact]):
    """The one of the documentation, with every callback."""

    queue = "acme.crm"
    batching = Batching(size=100, timeout=2.0)
    retries = Retries(attempts=8)
    rate_limit = RateLimit(calls=10, per=1.0)
    settings: CrmSettings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def handle_message(self, message: Message[Action]) -> Contact:
        return Contact(str(message.body.page))

    def batch_key(self, message: Message[Contact]) -> Hashable:
        return message.body.name

    async def handle_batch(self, batch: Batch[Contact]) -> None:
        """Deliver nothing."""

    async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
        """Observe nothing."""


def nothing(self: object, message: object) -> None:
    """Do as a callback with one parameter does."""


def refused(**body: Any) -> str:
    """Return the sentence that answers `class Crm(Pipeline[Action])` with *body*."""
    with pytest.raises(ConfigError) as caught:
        declared(**body)
    return str(caught.value)


def declared(**body: Any) -> type[Pipeline[Action]]:
    """Return `class Crm(Pipeline[Action])` with *body*."""
    return new_class("Crm", (Pipeline[Action],), exec_body=lambda space: space.update(body))


def incomplete(cls: type[Pipeline[Any, Any]]) -> str:
    with pytest.raises(ConfigError) as caught:
        cls.check()
    return str(caught.value)


def test_a_complete_pipeline_is_accepted() -> None:
    Crm.check()

    assert Crm.warnings() == []


def test_defaults() -> None:
    cls = declared(queue="q", handle_message=nothing)

    assert (cls.concurrency, cls.retries, cls.rate_limit, cls.prefetch) == (10, Retries(), None, None)
    assert (cls.handler_timeout, cls.batch_timeout, cls.retry_delay) == (60.0, 120.0, 30.0)
    assert (cls.max_body, cls.park, cls.dead_letter) == (1 << 20, "queue", None)


@pytest.mark.parametrize(
    ("cls", "name"),
    [("Crm", "crm"), ("ThankYou", "thank_you"), ("SQSForwarder", "sqs_forwarder"), ("Crm2Mail", "crm2_mail")],
)
def test_the_name_is_the_class_name_in_snake_case(cls: str, name: str) -> None:
    assert type(cls, (Pipeline,), {}).name == name  # type: ignore[attr-defined]  # type() knows no attributes


def test_a_name_is_not_inherited() -> None:
    """Two pipelines must not share their metrics by accident."""

    class Crm(Pipeline[Action]):
        name = "salesforce"

    class Other(Crm):
        """Inherits everything else."""

    assert (Crm.name, Other.name) == ("salesforce", "other")


def test_the_default_callbacks_hand_the_body_on_in_one_batch_and_do_nothing() -> None:
    cls = declared(queue="q", handle_batch=nothing)
    message: Message[Any] = MemoryOrigin().message({})
    message.body = Action(1)

    assert cls().handle_message(message) is message.body
    assert cls().batch_key(message) is None
    assert cls().batcher(message) == "default"


def test_batches_without_handle_batch_are_refused() -> None:
    """A20: every batch would fail."""
    sentence = "Crm.batching needs a handle_batch to deliver the batches"

    assert refused(queue="q", handle_message=nothing, batching=Batching()) == sentence
    assert incomplete(with_queue_later(handle_message=nothing, batching=Batching())).endswith(
        "batching needs a handle_batch to deliver the batches"
    )


def with_queue_later(**body: Any) -> type[Pipeline[Action]]:
    """Return a class that escapes the check of a class with a queue, as its queue is set afterwards."""
    cls = declared(**body)
    cls.queue = "q"
    return cls


@pytest.mark.parametrize("callback", ["batch_key", "batcher"])
def test_a_callback_that_is_never_called_is_refused(callback: str) -> None:
    body = {"queue": "q", "handle_message": nothing, callback: nothing}

    assert refused(**body) == f"Crm.{callback} needs a handle_batch to deliver the batches"


def test_several_batchings_need_a_batcher() -> None:
    """D04: which one a message is for cannot be guessed."""
    several = {
        "queue": "q",
        "handle_batch": nothing,
        "batching": {"thank_you": Batching(), "sqs": Batching()},
    }

    assert refused(**several) == "Crm.batching needs a batcher that chooses between thank_you and sqs"
    declared(**several, batcher=nothing).check()


def test_one_named_batching_needs_no_batcher() -> None:
    """D04: every message is for the only one."""
    only = Batching(size=3)
    cls = declared(queue="q", handle_batch=nothing, batching={"s3": only})
    cls.check()

    assert cls.batchings() == {"s3": only}
    assert cls().batcher(MemoryOrigin().message({})) == "s3"


def test_a_batcher_needs_names_to_choose_from() -> None:
    assert refused(queue="q", handle_batch=nothing, batcher=nothing) == (
        'Crm.batcher needs names to choose from, like batching = {"bulk": Batching()}'
    )


def test_batchings_by_name() -> None:
    assert Crm.batchings() == {"default": Crm.batching}
    assert declared(queue="q", handle_batch=nothing).batchings() == {"default": Batching()}
    assert declared(queue="q", handle_message=nothing).batchings() == {}


def test_what_is_missing_is_told_by_check() -> None:
    """A06: a queue, a callback, the type of the messages."""
    untyped = type("Crm", (Pipeline,), {"queue": "q", "handle_message": nothing})

    assert incomplete(declared(handle_message=nothing)) == 'Crm needs a queue, like queue = "acme.crm"'
    assert incomplete(declared(queue="q")) == "Crm needs a handle_message or a handle_batch"
    assert incomplete(untyped) == (
        "Crm must say what its messages hold, like class Crm(Pipeline[ActionMessage])"
    )


def test_a_class_without_a_queue_may_be_inherited_from() -> None:
    class Mailer(Pipeline[Action]):
        batching = Batching(size=1)
        concurrency = 3

    class ThankYou(Mailer):
        queue = "system.email.thankyou"

        async def handle_batch(self, batch: Batch[Action]) -> None:
            """Deliver nothing."""

    ThankYou.check()

    assert (ThankYou.concurrency, ThankYou.batchings()["default"].size) == (3, 1)


T = TypeVar("T")
Both = TypeAliasType("Both", Action | Supporter)


class Generic_(Pipeline[T, Contact], Generic[T]):
    queue = "q"


class Half(Pipeline[Action | T, Contact], Generic[T]):
    queue = "q"


class Later(Pipeline["Action | Late"]):
    queue = "q"


class Late(msgspec.Struct):
    """Defined after the pipeline that names it."""


class Mixin:
    """No pipeline."""


class Mixed(Mixin, Crm):
    queue = "q"


@pytest.mark.parametrize(
    ("cls", "types"),
    [
        (Crm, (Action,)),
        (new_class("A", (Pipeline[Action | Supporter, Contact],)), (Action, Supporter)),
        (new_class("A", (Pipeline[Annotated[Action, "x"]],)), (Action,)),
        (new_class("A", (Pipeline[Both],)), (Action, Supporter)),
        (new_class("A", (Generic_[Supporter],)), (Supporter,)),
        (new_class("A", (new_class("B", (Generic_[Supporter],)),)), (Supporter,)),
        (new_class("A", (Half[Supporter],)), (Action, Supporter)),
        (Later, (Action, Late)),
        (Mixed, (Action,)),
    ],
)
def test_the_types_of_the_messages(cls: type[Pipeline[Any, Any]], types: tuple[type, ...]) -> None:
    assert cls.message_types() == types


class Nowhere(Pipeline["Missing"]):  # type: ignore[name-defined]  # that is the point
    queue = "q"


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (Generic_, "Generic_ must say what its messages hold, like class Generic_(Pipeline[ActionMessage])"),
        (Nowhere, "an annotation of Nowhere cannot be read: name 'Missing' is not defined"),
        (new_class("A", (Pipeline[Any],)), "A must name the classes of its messages, got typing.Any"),
        (new_class("A", (Pipeline[list[int]],)), "A must name the classes of its messages, got list[int]"),
    ],
)
def test_messages_of_no_class_are_refused(cls: type[Pipeline[Any, Any]], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cls.message_types()

    assert str(caught.value) == sentence


def test_messages_are_structs() -> None:
    body = {"queue": "q", "handle_message": nothing}
    cls = new_class("Crm", (Pipeline[int],), exec_body=lambda space: space.update(body))

    assert incomplete(cls) == "Crm must read its messages as msgspec Structs, got int"


@pytest.mark.parametrize(
    ("body", "prefetch"),
    [
        ({"handle_message": nothing}, 100),
        ({"handle_message": nothing, "concurrency": 500}, 500),
        ({"handle_batch": nothing}, 10 + 100 * 6),
        ({"handle_batch": nothing, "batching": Batching(size=10, concurrency=1)}, 100),
        ({"handle_batch": nothing, "batching": Batching(size=1000)}, 2000),
        (
            {
                "handle_batch": nothing,
                "batcher": nothing,
                "batching": {"a": Batching(), "b": Batching(size=50)},
            },
            10 + 100 * 6 + 50 * 6,
        ),
    ],
)
def test_the_default_prefetch_keeps_handlers_and_batches_busy(body: dict[str, Any], prefetch: int) -> None:
    """R01: without options the window is what handlers and batches can use, 100 to 2000."""
    cls = declared(queue="q", **body)

    assert cls.granted() == prefetch
    assert declared(queue="q", **body, prefetch=7).granted() == 7


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        ({"prefetch": 5, "batching": Batching(size=10)}, "Crm: prefetch 5 can never fill a batch of 10"),
        ({"prefetch": 9, "batching": Batching(size=10)}, "Crm: prefetch 9 can never fill a batch of 10"),
        (
            {"prefetch": 10, "batching": Batching(size=10)},
            "Crm: prefetch 10 is below the 30 messages that handlers and batches hold when all are busy",
        ),
        ({"batching": Batching(size=3000)}, "Crm: prefetch 2000 can never fill a batch of 3000"),
        (
            {"prefetch": 29, "batching": Batching(size=10)},
            "Crm: prefetch 29 is below the 30 messages that handlers and batches hold when all are busy",
        ),
        (
            {"batching": Batching(timeout=1700.0)},
            "Crm: a message may take 1880 s by its timeouts, but after 1800 s a broker with default settings "
            "(consumer_timeout) ends the channel",
        ),
    ],
)
def test_what_works_hardly_as_meant_is_a_warning(body: dict[str, Any], warning: str) -> None:
    """A22: a prefetch that can never fill a batch is told with both numbers."""
    assert declared(queue="q", handle_batch=nothing, **body).warnings() == [warning]


def test_a_prefetch_that_is_just_enough_is_no_warning() -> None:
    cls = declared(queue="q", handle_batch=nothing, prefetch=30, batching=Batching(size=10))

    assert cls.warnings() == []


def test_settings_are_filled_from_the_environment() -> None:
    pipeline = Crm.configured({"CRM_URL": "https://crm.example", "CRM_TOKEN": "secret"})

    assert pipeline.settings == CrmSettings(url="https://crm.example", token=Secret("secret"))


def test_unset_settings_are_told() -> None:
    with pytest.raises(
        ConfigError, match=r"^CrmSettings needs CRM_URL and CRM_TOKEN \(or CRM_TOKEN_FILE\) to be"
    ):
        Crm.configured({})


def test_a_pipeline_without_settings_needs_none() -> None:
    assert declared(queue="q", handle_message=nothing).configured({}).settings is None


def test_settings_of_another_class_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError) as caught:
        Crm("secret")

    assert str(caught.value) == "Crm takes CrmSettings as its settings, got str"


def test_settings_must_be_settings() -> None:
    cls = declared(queue="q", handle_message=nothing, __annotations__={"settings": dict})

    assert incomplete(cls) == "Crm.settings must be a subclass of Settings, got the class dict"


def test_settings_are_inherited_and_may_be_named_as_a_string() -> None:
    named = declared(__annotations__={"settings": "CrmSettings"}, __module__=__name__)

    assert named.settings_type() is CrmSettings
    assert Mixed.settings_type() is CrmSettings


def test_options_given_at_the_start_replace_those_of_the_class() -> None:
    cls = declared(handle_batch=nothing, name="salesforce", concurrency=3)

    pipeline = cls.configured({}, queue="q", concurrency=4)

    assert (pipeline.queue, pipeline.concurrency, pipeline.name) == ("q", 4, "salesforce")
    assert type(pipeline).__name__ == "Crm"
    assert cls.concurrency == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concurrency": 0}, "Crm.concurrency must be a whole number of at least 1, got 0"),
        ({"prefech": 1}, "Crm has no option prefech; did you mean prefetch?"),
    ],
)
def test_options_given_at_the_start_are_checked(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(queue="q", handle_batch=nothing).configured({}, **options)

    assert str(caught.value) == sentence


def test_importing_flow_is_cheap() -> None:
    """The broker, the metrics and the HTTP server are imported where they are used."""
    heavy = {
        "aiormq",
        "pamqp",
        "prometheus_client",
        "anyio",
        "asyncio",
        "starlette",
        "uvicorn",
        "click",
        "httpx2",
    }
    code = f"import flow, sys; print(sorted({heavy!r} & set(sys.modules)))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
