"""A small stand-in for Amazon SQS: SendMessageBatch over JSON, with faults to order; for the demo."""

from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from flow.codec import tried

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

KEY, SECRET, REGION = "demo", "demo-secret", "eu-central-1"
QUEUE = "/000000000000/signatures"
MOST = 10  # entries in one call
OPERATION = "AmazonSQS.SendMessageBatch"


class Entry(msgspec.Struct, rename="pascal"):
    """One message in a call."""

    id: str
    message_body: str
    message_attributes: dict[str, Any] = {}


class Call(msgspec.Struct, rename="pascal"):
    """What is sent."""

    queue_url: str
    entries: list[Entry]


class Body(msgspec.Struct, rename="camel"):
    """What is looked at in a message."""

    schema: str
    action_id: int


CALL, BODY = msgspec.json.Decoder(Call), msgspec.json.Decoder(Body)


class SqsServer:
    """What was stored, and what goes wrong."""

    def __init__(self) -> None:
        self.stored: Counter[tuple[str, int]] = Counter()
        """How often each message was stored, by its schema and the id of its action."""
        self.throttled = False
        """Whether it takes no call now."""
        self.failing = 0
        """Of every so-manieth call one entry fails; 0: none."""
        self._calls = 0

    def application(self) -> Any:
        """Return it as an ASGI application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(routes=[Route("/", self._call, methods=["POST"])])

    async def _call(self, request: "Request") -> "Response":
        self._calls += 1
        if f"Credential={KEY}/" not in request.headers.get("authorization", ""):
            return refusal("InvalidClientTokenId", 403)
        if self.throttled:
            return refusal("ThrottlingException", 400)
        if request.headers.get("x-amz-target") != OPERATION:
            return refusal("UnsupportedOperation", 400)
        call, error = tried(CALL.decode, await request.body())
        if error or not isinstance(call, Call) or not 0 < len(call.entries) <= MOST:
            return refusal("InvalidParameterValue", 400)
        if not call.queue_url.endswith(QUEUE):
            return refusal("QueueDoesNotExist", 400)
        return answer(self._store(call.entries))

    def _store(self, entries: list[Entry]) -> dict[str, Any]:
        successful, failed = [], []
        for place, entry in enumerate(entries):
            if self.failing and self._calls % self.failing == 0 and place == 0:
                failed.append({"Id": entry.id, "Code": "InternalError", "SenderFault": False})
                continue
            body, error = tried(BODY.decode, entry.message_body)
            if error or not isinstance(body, Body):
                failed.append({"Id": entry.id, "Code": "InvalidMessageContents", "SenderFault": True})
                continue
            self.stored[body.schema, body.action_id] += 1
            successful.append({"Id": entry.id, "MessageId": str(uuid4()), "MD5OfMessageBody": ""})
        return {"Successful": successful, "Failed": failed}


def answer(content: dict[str, Any], status: int = 200) -> "Response":
    """Return *content* as SQS does."""
    from starlette.responses import Response

    return Response(msgspec.json.encode(content), status, media_type="application/x-amz-json-1.0")


def refusal(code: str, status: int) -> "Response":
    """Return the refusal of a whole call."""
    return answer({"__type": f"com.amazonaws.sqs#{code}", "message": "refused"}, status)
