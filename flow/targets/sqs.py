"""A target that is a queue of Amazon SQS: ten messages in one call, each decided on its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flow.errors import ConfigError
from flow.options import seconds, whole
from flow.outcome import Reject, Retry, Unavailable, Verdict

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

MOST = 10  # entries in one call (SendMessageBatch)
LIMIT = 256 << 10  # bytes of all bodies and attributes in one call
CONNECT = 5.0  # seconds; then SQS counts as away
LONGEST_ID = 128  # characters of a group or deduplication id

# SQS would store U+FFFD in the place of what XML cannot hold; in JSON the escape means the same.
ESCAPED = str.maketrans({"\ufffe": "\\ufffe", "\uffff": "\\uffff"})
# An attribute with any of these is refused, and with it the message; in JSON they are escapes anyway.
DROPPED = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF))

# Of one entry: it will never be taken.
HOPELESS = frozenset(
    {"InvalidMessageContents", "InvalidAttributeValue", "InvalidParameterValue", "InvalidParameter"}
)
# Of a whole call that has one entry: it will never be taken. Of one with several: found when it is alone.
CONDEMNED = HOPELESS | {"BatchRequestTooLong", "MessageTooLong", "InvalidBatchEntryId"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One message for SQS."""

    body: bytes
    """JSON, as it is in the queue of RabbitMQ."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Texts beside the body; empty ones are left out, for SQS takes none."""
    group: str = ""
    """FIFO queues keep the order within a group."""
    deduplication: str = ""
    """FIFO queues take each of these once in five minutes; the same at every attempt."""

    def __repr__(self) -> str:
        """Show no contents."""
        return f"<Entry of {len(self.body)} bytes>"

    @property
    def size(self) -> int:
        """What SQS counts of it, in bytes."""
        around = sum(len(name) + len("String") + len(value.encode()) for name, value in self._given())
        return len(self.text.encode()) + around

    @property
    def text(self) -> str:
        """The body as SQS can store it."""
        return self.body.decode().translate(ESCAPED)

    def request(self, number: int, fifo: bool) -> dict[str, Any]:
        """Return it as an entry of SendMessageBatch, under an id that says which it is."""
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in self._given()}
        ordered = {"MessageGroupId": self.group, "MessageDeduplicationId": self.deduplication}
        return {
            "Id": str(number),
            "MessageBody": self.text,
            "MessageAttributes": attributes,
            **(ordered if fifo else {}),
        }

    def _given(self) -> Iterator[tuple[str, str]]:
        for name, value in self.attributes.items():
            if kept := value.translate(DROPPED):
                yield name, kept


class SqsTarget:
    """One queue of Amazon SQS; `async with` opens and closes its connections.

    Credentials and region are found the usual way of AWS: environment, profile, container, instance. What SQS
    answers beyond its error codes is never repeated in a reason: it may quote what it was sent.
    """

    def __init__(
        self,
        queue_url: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        limit: int = LIMIT,
        timeout: float = 20.0,
    ) -> None:
        """Take the *queue_url*; one that ends with `.fifo` is a FIFO queue.

        *region* is needed where neither the environment nor the URL tells it. *endpoint* is the URL of
        another server that speaks like SQS. *limit* is how many bytes one call may carry, and one message may
        have. *timeout* is in seconds, for one call from connecting to its answer.

        Raises:
            ConfigError: one of them is wrong, or aiobotocore is not installed.
        """
        parts = urlsplit(queue_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path in ("", "/"):
            raise ConfigError(
                "the URL of the SQS queue must begin with https:// and end with the queue's name"
            )
        seconds("the timeout of SQS", timeout)
        whole("the limit of SQS", limit)
        try:
            import aiobotocore.session  # noqa: F401  # here, so that it is missed before the first connection
        except ModuleNotFoundError:
            raise ConfigError("aiobotocore is needed for SQS: install proca-flow[sqs]") from None
        self.fifo = queue_url.endswith(".fifo")
        self.limit = limit
        self._url = queue_url
        self._region = region or region_in(parts.hostname)
        self._endpoint = endpoint
        self._timeout = timeout
        self._opened = AsyncExitStack()
        self._client: Any = None

    async def __aenter__(self) -> "SqsTarget":
        """Open it; nothing is sent yet.

        Raises:
            ConfigError: there are no credentials, no region, or the endpoint is no URL.
        """
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session
        from botocore.exceptions import BotoCoreError, NoRegionError

        # Only flow tries again: a call that is repeated below it would take several timeouts.
        config = AioConfig(
            connect_timeout=min(CONNECT, self._timeout),
            read_timeout=self._timeout,
            retries={"total_max_attempts": 1},
        )
        session = get_session()
        try:
            if await session.get_credentials() is None:
                raise ConfigError(
                    "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
            client = session.create_client(
                "sqs", region_name=self._region, endpoint_url=self._endpoint, config=config
            )
            self._client = await self._opened.enter_async_context(client)
        except NoRegionError:
            raise ConfigError("the region of SQS is not known: set AWS_DEFAULT_REGION") from None
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"SQS cannot be set up: {type(error).__name__}") from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._opened.__aexit__(kind, error, traceback)

    async def send(self, entries: Sequence[Entry]) -> list[Verdict | None]:
        """Send *entries* in as few calls as they fit, and return what became of each; None: it is stored.

        Raises:
            Unavailable: before anything was stored SQS was away, throttled, or refused the caller or the
                queue.
        """
        verdicts: list[Verdict | None] = [None] * len(entries)
        for call in self._calls(entries, verdicts):
            try:
                await self._send(call, entries, verdicts)
            except Unavailable as away:
                if call[0] == 0 or not any(verdict is None for verdict in verdicts[: call[0]]):
                    raise
                for number in call:
                    verdicts[number] = Retry(away.reason, away.after)
        return verdicts

    def _calls(self, entries: Sequence[Entry], verdicts: list[Verdict | None]) -> Iterator[list[int]]:
        """Yield which entries go together; those that SQS would not take alone are rejected."""
        call: list[int] = []
        size = 0
        for number, entry in enumerate(entries):
            if entry.size > self.limit:
                verdicts[number] = Reject(f"it is larger than SQS takes: {entry.size} of {self.limit} bytes")
                continue
            if call and (len(call) == MOST or size + entry.size > self.limit):
                yield call
                call, size = [], 0
            call.append(number)
            size += entry.size
        if call:
            yield call

    async def _send(self, call: list[int], entries: Sequence[Entry], verdicts: list[Verdict | None]) -> None:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectTimeoutError,
            EndpointConnectionError,
        )

        requests = [entries[number].request(number, self.fifo) for number in call]
        try:
            answer = await self._client.send_message_batch(QueueUrl=self._url, Entries=requests)
        except ClientError as error:
            refusal = refused(error, alone=len(call) == 1)
            if isinstance(refusal, Unavailable):
                raise refusal from None
            for number in call:
                verdicts[number] = refusal
            return
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise Unavailable(f"SQS cannot be reached ({type(error).__name__})") from None
        except BotoCoreError as error:
            for number in call:
                verdicts[number] = Retry(f"the call to SQS broke off ({type(error).__name__})")
            return
        stored = {entry.get("Id") for entry in answer.get("Successful", ())}
        failed = {entry.get("Id"): entry for entry in answer.get("Failed", ())}
        for number in call:
            if str(number) not in stored:
                verdicts[number] = judged(failed.get(str(number)))


def judged(failure: Mapping[str, Any] | None) -> Verdict:
    """Return what becomes of an entry that SQS did not store."""
    if failure is None:
        return Retry("SQS did not say what became of it")
    code = word(failure.get("Code"))
    if failure.get("SenderFault") and code.rpartition(".")[2] in HOPELESS:
        return Reject(f"SQS will not take it: {code}")
    return Retry(f"SQS does not take it now: {code}")


def refused(error: "ClientError", *, alone: bool) -> Verdict:
    """Return what a refusal of the whole call means; *alone*: it had one entry."""
    code = word(error.response.get("Error", {}).get("Code"))
    bare = code.rpartition(".")[2]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if bare in CONDEMNED:
        return Reject(f"SQS will not take it: {code}") if alone else Retry(f"SQS refuses the call: {code}")
    if status >= 500 and "Unavailable" not in bare:
        return Retry(f"SQS failed: {code}")
    return Unavailable(f"SQS refuses the call: {code}")


def word(code: object) -> str:
    """Return an error code of SQS as it may be shown."""
    text = code if isinstance(code, str) else ""
    return (
        text if text.replace(".", "").isalnum() and text.isascii() and len(text) <= LONGEST_ID else "unknown"
    )


def region_in(host: str) -> str | None:
    """Return the region that the *host* of a queue's URL names, `sqs.REGION.amazonaws.com`, or None."""
    name, _, rest = host.partition(".")
    region, _, domain = rest.partition(".")
    return region if name == "sqs" and domain.startswith("amazonaws.com") else None
