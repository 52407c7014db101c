"""A server of SQS on 127.0.0.1, as moto runs it, and what lies in its queues."""

import subprocess
import sys
from types import TracebackType
from typing import Any

SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
"""Serves until its standard input ends, as it does when nobody holds the other end any more."""


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
        while messages := self.some(url):
            taken += messages
        return taken

    def some(self, url: str) -> list[dict[str, Any]]:
        """Take up to ten of what waits in a queue, in its order."""
        answer = self._client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            self._client.delete_message_batch(QueueUrl=url, Entries=entries)
        return messages
