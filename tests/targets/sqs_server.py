"""A server of SQS on 127.0.0.1, as moto runs it, and what lies in its queues."""

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

SERVER = """
import json
import sys
from moto.server import ThreadedMotoServer
from moto.sqs.models import sqs_backends

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
for line in sys.stdin:
    queue = sqs_backends["123456789012"]["eu-central-1"].queues[line.strip()]
    messages = [{"Body": one.body, "MessageAttributes": one.message_attributes} for one in queue.messages]
    print(json.dumps(messages), flush=True)
"""
"""Serves until its standard input ends, as it does when nobody holds the other end any more.

For each name of a queue it writes down what lies there: taking it from there, ten at a time, takes long.
"""


class SqsServer:
    """A process of its own while it is entered: its threads would keep those of the tests waiting."""

    def __enter__(self) -> "SqsServer":
        import botocore.session  # here: it takes long to import, and few tests need it

        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._server.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._server.stdout.readline())}"
        self._client: Any = botocore.session.get_session().create_client(
            "sqs",
            region_name="eu-central-1",
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()
        self._server.kill()
        self._server.communicate()

    def queue(self, name: str) -> str:
        """Create a queue; return its URL."""
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        return str(self._client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    def received(self, url: str) -> list[dict[str, Any]]:
        """Take everything that waits in a queue, in its order."""
        taken: list[dict[str, Any]] = []
        while messages := self._client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages"):
            taken += messages
            for message in messages:
                self._client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return taken

    def stored(self, url: str) -> list[dict[str, Any]]:
        """Return body and attributes of everything in a queue, and leave it there."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{url.rpartition('/')[2]}\n".encode())
        self._server.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self._server.stdout.readline())
        return found
