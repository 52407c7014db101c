"""A server of SQS on 127.0.0.1, as moto runs it, and what lies in its queues."""

from types import TracebackType
from typing import Any


class SqsServer:
    """Runs in threads of its own while it is entered."""

    def __enter__(self) -> "SqsServer":
        import botocore.session  # here: both take long to import, and few tests need them
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
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
        self._server.stop()

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
