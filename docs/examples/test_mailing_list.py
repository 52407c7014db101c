"""Tests of the pipeline in mailing_list.py against a server on this machine; no broker is needed."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from mailing_list import MailingList

from flow.pytest_plugin import Configure
from flow.testing import Outcome, action, run_messages

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class List(ThreadingHTTPServer):
    """A mailing list that refuses one address."""

    members: list[dict[str, Any]]
    status = 200


class Handler(BaseHTTPRequestHandler):
    server: List

    def do_POST(self) -> None:
        members = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer secret"
        self.server.members += members
        answer = [one["email"] for one in members if one["email"].startswith("gone@")]
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def members() -> Iterator[List]:
    with List(("127.0.0.1", 0), Handler) as server:
        server.members = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pipeline(members: List, configured: Configure) -> MailingList:
    url = f"http://127.0.0.1:{members.server_address[1]}"
    return configured(MailingList, {"LIST_URL": url, "LIST_TOKEN": "secret"})


async def test_who_opted_in_is_subscribed_in_one_call(pipeline: MailingList, members: List) -> None:
    bodies = [action(email=f"jane{n}@example.org", opt_in=n != 2) for n in range(4)]

    results = await run_messages(pipeline, bodies)

    assert [one["email"] for one in members.members] == [f"jane{n}@example.org" for n in (0, 1, 3)]
    assert results[2].reason == "did not opt in"
    assert results[3].batch is not None
    assert results[3].batch.size == 3


async def test_a_refused_address_is_parked_alone(pipeline: MailingList) -> None:
    gone, fine = await run_messages(
        pipeline, [action(email=f"{name}@example.org", opt_in=True) for name in ("gone", "jane")]
    )

    assert (gone.outcome, fine.outcome) == (Outcome.PARKED, Outcome.DELIVERED)


async def test_a_list_that_is_down_costs_no_attempt(pipeline: MailingList, members: List) -> None:
    members.status = 503

    (result,) = await run_messages(pipeline, [action(opt_in=True)])

    assert result.outcome is Outcome.RETRYING
