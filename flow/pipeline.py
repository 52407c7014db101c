"""The class that a user writes: options, callbacks, and what they say about the pipeline."""

from collections.abc import AsyncIterator, Awaitable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from re import sub
from typing import Any, Generic, Literal, cast

import msgspec
from typing_extensions import TypeVar

from flow.annotations import argument, members, resolved
from flow.batch import Batch
from flow.batching import Batching
from flow.claim import Claim
from flow.declaration import CALLBACKS, OPTIONS, check_class, check_together, derived, shown
from flow.errors import ConfigError
from flow.message import Message
from flow.options import suggestion
from flow.outcome import Outcome
from flow.ratelimit import RateLimit
from flow.retries import Retries
from flow.settings import Settings, load
from flow.sizing import default_prefetch, time_warnings, window_warnings

In = TypeVar("In")
Out = TypeVar("Out", default=In)
P = TypeVar("P", bound="Pipeline[Any, Any]")


class Pipeline(Generic[In, Out]):
    """Consumes one queue and delivers what it holds: subclass it, set the options, write the callbacks.

    `In` is what the messages hold: a Struct, or several as `A | B`. `Out` is what `handle_message` makes of
    it for `handle_batch`; without it the same. A subclass is checked when it is defined: a wrong name, value
    or callback raises `ConfigError`. One without a queue is not run; others may inherit from it.

    Raising `Skip`, `Retry`, `Reject`, `Unavailable` or any exception decides all that a callback has in
    hand; `batch.skip`, `batch.retry` and `batch.reject` decide one message of many.
    """

    queue: str
    """The queue to consume. It has no default; `queues` takes its place when there are several."""
    name: str
    """What metrics and logs call it. Not inherited; defaults to the class name in snake_case."""
    concurrency: int = 10
    """Most messages in `handle_message` at once. Defaults to 10."""
    blocking: bool = False
    """Whether `handle_message` and `handle_batch`, plain `def`s, block: they run in threads of the pipeline's
    own then. Defaults to False: they run in the event loop."""
    prepare_size: int = 100
    """Most messages in one `prepare_messages`. Defaults to 100."""
    batching: Batching | Mapping[str, Batching] | None = None
    """How batches are made; several by name let `batcher` choose. None: `Batching()`, if there is a
    `handle_batch`."""
    retries: Retries = Retries()
    """How often a message is tried before it is parked. Defaults to 10 attempts."""
    rate_limit: RateLimit | None = None
    """How often `handle_batch`, or else `handle_message`, is called. Defaults to None: no limit."""
    claim: Claim | None = None
    """What must never be done twice; it is claimed before the delivering callback. A `handle_batch` surrounds
    each effect with `batch.sending`. Defaults to None: a copy that is not known as one is delivered again."""
    prefetch: int | None = None
    """Most unsettled messages the broker grants; None: what handlers and batches can use, 100 to 2000."""
    exclusive: bool = False
    """Whether nobody else may consume the queue meanwhile. Defaults to False."""
    consumer_priority: int | None = None
    """Consumers of a higher priority get messages first; None: 0, as for all. Defaults to None."""
    handler_timeout: float = 60.0
    """Most seconds for one `handle_message` or `handle_failed`; then it is cancelled and counts as failed.
    Defaults to 60."""
    batch_timeout: float = 120.0
    """Most seconds for one `handle_batch`; then it is cancelled and counts as failed. Defaults to 120."""
    retry_delay: float = 30.0
    """Seconds that the queue's retry loop takes; it is set on the broker and cannot be read from it.
    Defaults to 30."""
    max_body: int = 1 << 20
    """Most bytes of a body; larger ones are not taken and stay in the retry loop. Defaults to 1 MiB."""
    park: str = "queue"
    """Where hopeless messages go: "queue" publishes them to the park, "loop" rejects them again and again,
    and "spool:FOLDER" writes each to a file there, which `flow dead load` brings to the park. The last two
    are for accounts that may not publish. Defaults to "queue"."""
    dead_letter: Literal["assume", "refuse"] | None = None
    """Whether rejecting is safe because the queue has a dead-letter exchange: "assume" it, or "refuse" to
    reject, and hold the message instead. None: assumed for queues that flow sets up, else refused."""
    settings: Any
    """The settings given to the constructor; annotate it with a subclass of `Settings` to have it filled."""

    def __init__(self, settings: Any = None) -> None:
        """Take the *settings*, an instance of the class that `settings` is annotated with.

        Raises:
            ConfigError: they are not.
        """
        wanted = self.settings_type()
        if wanted is not None and not isinstance(settings, wanted):
            got = type(settings).__name__
            raise ConfigError(f"{type(self).__name__} takes {wanted.__name__} as its settings, got {got}")
        self.settings = settings

    def __init_subclass__(cls, **options: Any) -> None:
        """Check the class: names, values and callbacks, and with a queue also that they go together.

        Raises:
            ConfigError: something is wrong.
        """
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
        check_class(cls, taken=_OWN)
        if cls.consumes():
            _check_together(cls)

    def queues(self) -> AsyncIterator[Sequence[str]]:
        """Yield the names of the queues to consume, and again whenever they change; instead of `queue`.

        An `async def` with `yield`. What is wrong with one queue touches no other; they share the handlers
        and take turns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no queues")

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Surround the run: open clients before the yield, close them after it.

        An `async def` that yields once, under `@asynccontextmanager`. What it raises before the yield ends
        the program before the first message is consumed.
        """
        return nullcontext()

    async def prepare_messages(self, messages: Sequence[Message[In]]) -> object:
        """Prepare for handling *messages*, with one query for all of them for example.

        What is returned is each message's `prepared`. What it raises decides all of them, and none is
        handled. It never waits for more messages to come.
        """

    def partition_key(self, message: Message[In]) -> Hashable:
        """Return what must stay in order: messages of one key are handled and delivered one after another.

        Asked once for each message, before it is handled; again after `Unavailable`, while its whole queue
        waits. Keys share `concurrency` partitions: whole numbers modulo their number, anything else by its
        `repr`. A message that is retried, or comes again after a lost connection, has lost its place, and so
        has one whose failure showed that the target is down: another one probes.
        """
        return None

    def handle_message(self, message: Message[In]) -> Out | Awaitable[Out]:
        """Handle one message; what is returned travels on to the batch as its new body.

        May be `def` or `async def`; up to `concurrency` run at once. Without a `handle_batch` this is where
        the delivery happens; before one it must be repeatable. Returns the body unless overridden.
        """
        return cast("Out", message.body)

    def batcher(self, message: Message[Out]) -> str:
        """Return the name of the `Batching` that *message* is for; needed when there are several."""
        return next(iter(self.batchings()))

    def batch_key(self, message: Message[Out]) -> Hashable:
        """Return what the messages of one batch have in common. Returns None unless overridden: all."""
        return None

    def handle_batch(self, batch: Batch[Out]) -> Awaitable[None] | None:
        """Deliver *batch*; what is neither marked nor decided by an exception is delivered on return.

        May be `def` or `async def`; up to `Batching.concurrency` run at once for each `Batching`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle_batch")

    async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
        """Observe that *message* becomes retrying or parked, and why, before the broker is told.

        It changes nothing; what it raises is logged.
        """

    @classmethod
    def configured(cls, environment: Mapping[str, str], **options: object) -> "Pipeline[In, Out]":
        """Return a pipeline with its settings from *environment*; *options* replace those of the class.

        Raises:
            ConfigError: an option, a setting or the class is wrong, or something is missing.
        """
        made = with_options(cls, options) if options else cls
        made.check()
        wanted = made.settings_type()
        return made() if wanted is None else made(load(wanted, environment))

    @classmethod
    def check(cls) -> None:
        """Check that nothing is missing to run this class.

        Raises:
            ConfigError: there is no queue, no callback, or no Struct that its messages are read as.
        """
        name = cls.__name__
        if not cls.consumes():
            raise ConfigError(f'{name} needs a queue, like queue = "acme.crm"')
        if not _defines(cls, "handle_message") and not _defines(cls, "handle_batch"):
            raise ConfigError(f"{name} needs a handle_message or a handle_batch")
        _check_together(cls)
        for kind in cls.message_types():
            if not issubclass(kind, msgspec.Struct):
                raise ConfigError(f"{name} must read its messages as msgspec Structs, got {kind.__name__}")
        cls.settings_type()

    @classmethod
    def message_types(cls) -> tuple[type, ...]:
        """Return the classes of `In`.

        Raises:
            ConfigError: the class does not say what its messages hold.
        """
        found = argument(cls, Pipeline)
        if found is None or isinstance(found, TypeVar):
            example = f"class {cls.__name__}(Pipeline[ActionMessage])"
            raise ConfigError(f"{cls.__name__} must say what its messages hold, like {example}")
        types = tuple(members(found))
        for one in types:
            if not isinstance(one, type) or one is Any:
                raise ConfigError(f"{cls.__name__} must name the classes of its messages, got {one}")
        return cast("tuple[type, ...]", types)

    @classmethod
    def settings_type(cls) -> type[Settings] | None:
        """Return the class that `settings` is annotated with, or None.

        Raises:
            ConfigError: it is no subclass of `Settings`.
        """
        for owner in cls.__mro__[: cls.__mro__.index(Pipeline)]:
            annotation = vars(owner).get("__annotations__", {}).get("settings")
            if annotation is not None:
                found = resolved(annotation, owner)
                if not isinstance(found, type) or not issubclass(found, Settings):
                    got = shown(found)
                    raise ConfigError(f"{cls.__name__}.settings must be a subclass of Settings, got {got}")
                return found
        return None

    @classmethod
    def batchings(cls) -> Mapping[str, Batching]:
        """Return every `Batching` by name; the only one is called "default", and there may be none."""
        if isinstance(cls.batching, Mapping):
            return cls.batching
        if not _defines(cls, "handle_batch"):
            return {}
        return {"default": cls.batching or Batching()}

    @classmethod
    def granted(cls) -> int:
        """Return the prefetch to ask the broker for: the one given, or else one that keeps all busy."""
        return cls.prefetch or default_prefetch(cls.concurrency, cls.batchings().values())

    @classmethod
    def warnings(cls) -> list[str]:
        """Return a sentence for everything that works, but hardly as it was meant."""
        sizes = window_warnings(cls.granted(), cls.prefetch, cls.concurrency, cls.batchings().values())
        times = time_warnings(cls.handler_timeout, cls.batch_timeout, cls.batchings().values())
        return [f"{cls.__name__}: {warning}" for warning in [*sizes, *times]]

    @classmethod
    def shared(cls) -> bool:
        """Tell whether several queues or partitions share the stages, so that batches keep them apart."""
        return _defines(cls, "queues") or _defines(cls, "partition_key")

    @classmethod
    def consumes(cls) -> bool:
        """Tell whether the class names what it consumes; one that does not is for others to inherit from."""
        return hasattr(cls, "queue") or _defines(cls, "queues")


_OWN = {name for name, value in vars(Pipeline).items() if isinstance(value, classmethod) and name[0] != "_"}


def with_options(cls: type[P], options: Mapping[str, object]) -> type[P]:
    """Return *cls* with other *options*, checked as on a class.

    Raises:
        ConfigError: there is no such option, or its value is wrong.
    """
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"{cls.__name__} has no option {name}{suggestion(name, OPTIONS)}")
    body = dict(options)
    if "queue" in options and _defines(cls, "queues"):
        body["queues"] = Pipeline.queues  # one queue instead of them
    return derived(cls, **body)


def _defines(cls: type[Pipeline[Any, Any]], callback: str) -> bool:
    return getattr(cls, callback) is not getattr(Pipeline, callback)


def _check_together(cls: type[Pipeline[Any, Any]]) -> None:
    check_together(cls, {callback for callback in CALLBACKS if _defines(cls, callback)})
