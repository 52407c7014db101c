"""`flow serve` as users start it: signatures are submitted, links decide, the broker gets what follows."""

import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest

from flow.broker.url import BrokerUrl
from flow.devbroker.server import DevBroker
from flow.links import Links
from flow.plumbing.setup import set_up, topology_for
from flow.records.database import Database
from flow.topology import organisation_topology
from tests.broker.queues import until
from tests.cli.conftest import Ended, end_of, run_flow, start_flow
from tests.nodes.postgresql_node import PostgreSQLNode
from tests.serving.desk import ACME, OTHER, SECRET

pytestmark = pytest.mark.anyio
ORGANISATION = {"type": "organisation", "name": "acme", "supporterConfirm": True, "actionConfirm": True}
CAMPAIGN = {"type": "campaign", "name": "bees", "organisation": "acme", "title": "Save the bees"}
PAGE = {"type": "actionPage", "name": "bees/de", "campaign": "bees", "organisation": "acme", "locale": "de"}


def action(submission: str, email: str) -> dict[str, Any]:
    contact = {"email": email, "firstName": "Jane"}
    return {"actionPage": "bees/de", "submission": submission, "contact": contact}


class Served:
    """A `flow serve` process, its broker and its records."""

    def __init__(self, broker: DevBroker, database: str, folder: Path) -> None:
        self.broker = broker
        self.database = database
        self.folder = folder
        self.address = ""
        self.ops = ""

    @property
    def links(self) -> Links:
        return Links(self.address, SECRET)

    async def submit(self, *lines: dict[str, Any]) -> list[dict[str, Any]]:
        """Store lines; return what became of their actions."""
        results = self.folder / f"results-{len(list(self.folder.iterdir()))}"
        text = "\n".join(json.dumps(line) for line in lines).encode()
        done = await run_flow(
            "submit",
            "--results",
            str(results),
            stdin=text,
            url=self.broker.url(),
            FLOW_DATABASE_URL=self.database,
        )
        assert done.code == 0, done.err
        return [json.loads(line) for line in results.read_text().splitlines()]

    async def statuses(self) -> set[tuple[str, str]]:
        """Return the pairs of statuses in the records."""
        from sqlalchemy import text

        query = "select a.processing_status, s.processing_status from actions a join supporters s"
        async with Database.opened(self.database) as database, database.reading() as connection:
            rows = await connection.execute(text(f"{query} on s.id = a.supporter_id"))
            return {(row[0], row[1]) for row in rows}

    def waiting(self, queue: str) -> int:
        return self.broker.lengths()[queue]


@asynccontextmanager
async def served(folder: Path, database: str, *options: str) -> AsyncIterator[Served]:
    async with DevBroker() as broker:
        topology = topology_for(system_queues=True) + organisation_topology("acme", parts=("crm", "moderate"))
        await set_up(BrokerUrl.parse(broker.url()), topology)
        running = Served(broker, database, folder)
        migrated = await run_flow("records", "migrate", FLOW_DATABASE_URL=database)
        assert migrated.code == 0, migrated.err
        process = await start_flow(
            "serve",
            "--port",
            "0",
            "--ops-port",
            "0",
            *options,
            url=broker.url(),
            FLOW_DATABASE_URL=database,
            FLOW_LINK_SECRET=SECRET,
            FLOW_API_TOKENS=f"acme {ACME}\nother {OTHER}",
        )
        assert process.stderr is not None
        said = b""
        with anyio.fail_after(30):
            while len(found := re.findall(rb"http://[0-9.:]+(?=\n)", said)) < 2:
                said += await process.stderr.receive()
        running.ops, running.address = (one.decode() for one in found)
        try:
            yield running
        finally:
            ended: Ended = await end_of(process, signal.SIGTERM)
        assert ended.code == 0, said.decode() + ended.err


async def test_a_signature_is_confirmed_moderated_and_published_at_once(
    tmp_path: Path, database_url: str
) -> None:
    """No sweep comes by: each decision has its messages published."""
    sweeps = ("--sweep-every", "3600")
    async with served(tmp_path, database_url, *sweeps) as run, httpx2.AsyncClient(trust_env=False) as browser:
        (one,) = await run.submit(ORGANISATION, CAMPAIGN, PAGE, action("1", "jane@example.org"))
        number, reference = one["actionId"], one["contactRef"]

        wrong = await browser.post(run.links.supporter(number, "accept", "guessed"))
        page = await browser.get(run.links.supporter(number, "accept", reference))
        assert await run.statuses() == {("new", "confirming")}
        accepted = await browser.post(run.links.supporter(number, "accept", reference, doi=True))
        assert await run.statuses() == {("confirming", "accepted")}
        moderated = await browser.post(run.links.moderator(number, "accept"))

        assert [wrong.status_code, page.status_code] == [404, 200]
        assert "Save the bees" in page.text
        assert [accepted.status_code, moderated.status_code] == [200, 200]
        assert await run.statuses() == {("delivered", "accepted")}
        await until(lambda: run.waiting("acme.crm") == 2)  # the double opt-in, and the action
        assert run.waiting("acme.moderate") == 1


async def test_a_program_decides_with_its_token_and_another_organisations_cannot(
    tmp_path: Path, database_url: str
) -> None:
    async with served(tmp_path, database_url) as run, httpx2.AsyncClient(trust_env=False) as browser:
        (one,) = await run.submit(ORGANISATION, CAMPAIGN, PAGE, action("1", "jane@example.org"))
        link = run.links.supporter(one["actionId"], "reject", one["contactRef"])
        headers = {"accept": "application/json", "authorization": f"Bearer {OTHER}"}

        refused = await browser.get(link, headers=headers)
        done = await browser.get(link, headers=headers | {"authorization": f"Bearer {ACME}"})

        assert refused.status_code == 404
        assert done.json() == {
            "actionId": one["actionId"],
            "supporter": "rejected",
            "action": "rejected",
            "agreed": True,
        }
        assert await run.statuses() == {("rejected", "rejected")}


@asynccontextmanager
async def started(database: str) -> AsyncIterator[tuple[anyio.abc.Process, str]]:
    """Start `flow serve` without a broker; yield it with its address."""
    process = await start_flow(
        "serve",
        "--port",
        "0",
        "--sweep-every",
        "0.1",
        "--no-ops",
        url="amqp://127.0.0.1:1/",
        FLOW_DATABASE_URL=database,
        FLOW_LINK_SECRET=SECRET,
    )
    assert process.stderr is not None
    said = b""
    with anyio.fail_after(30):
        while not (found := re.search(rb"http://[0-9.:]+", said)):
            said += await process.stderr.receive()
    try:
        yield process, found[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


async def test_it_may_start_before_its_database_and_before_its_broker(
    postgresql_node: PostgreSQLNode, postgresql_url: str
) -> None:
    postgresql_node.stop()
    try:
        async with (
            started(postgresql_url) as (process, address),
            httpx2.AsyncClient(trust_env=False) as browser,
        ):
            link = Links(address, SECRET).moderator(1, "accept")
            away = [await browser.get(f"{address}/readyz"), await browser.post(link)]
            postgresql_node.start()
            with anyio.fail_after(30):
                while (await browser.get(f"{address}/readyz")).status_code != 200:
                    pass
            there = await browser.post(link)
            ended = await end_of(process, signal.SIGTERM)
    finally:
        if not postgresql_node.runs:
            postgresql_node.start()

    assert [answer.status_code for answer in away] == [503, 503]
    assert there.status_code == 404
    assert ended.code == 0
    assert "Traceback" not in ended.err


async def test_a_database_that_comes_without_tables_ends_it_with_a_sentence(
    postgresql_node: PostgreSQLNode,
) -> None:
    name = postgresql_node.add_database()
    postgresql_node.stop()
    try:
        async with started(postgresql_node.url(name)) as (process, _):
            postgresql_node.start()
            ended = await end_of(process)
    finally:
        if not postgresql_node.runs:
            postgresql_node.start()
        postgresql_node.drop_database(name)

    assert ended.code == 78
    assert ended.err.splitlines()[-1].endswith("has no records yet: run flow records migrate")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_wrong_secrets_and_a_taken_port_end_it_with_a_sentence(
    tmp_path: Path, database_url: str
) -> None:
    async with served(tmp_path, database_url) as run:
        port = run.address.rpartition(":")[2]
        url, database = run.broker.url(), {"FLOW_DATABASE_URL": database_url}
        short = await run_flow("serve", url=url, FLOW_LINK_SECRET="short", **database)
        tokens = await run_flow("serve", url=url, FLOW_API_TOKENS="acme", **database)
        taken = await run_flow("serve", "--no-ops", "--port", port, url=url, **database)
        ops = run.ops.rpartition(":")[2]
        both = await run_flow("serve", "--ops-port", ops, url=url, **database)
        host = await run_flow("serve", "--redirect-host", "https://a.example", url=url, **database)
        proxy = await run_flow("serve", "--trusted-proxy", "*", url=url, **database)
        nowhere = await run_flow("serve", url=url)

    assert short.err.startswith("flow: the secret that signs links must have at least 32 characters; ")
    assert tokens.err.startswith("flow: line 1 of the API tokens must be the name of an organisation")
    assert f"port {port} on 127.0.0.1 is taken: choose another with --port" in taken.err
    assert f"port {ops} on 127.0.0.1 is taken: choose another with --ops-port" in both.err
    assert host.err.startswith("flow: --redirect-host takes a host alone")
    assert proxy.err.startswith("flow: --trusted-proxy takes an address or a network")
    assert nowhere.err.startswith("flow: No database is named: set FLOW_DATABASE_URL to sqlite:///FILE")
    assert {one.code for one in (short, tokens, taken, both, host, proxy, nowhere)} == {78}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_metrics_and_health_are_on_a_port_of_their_own(tmp_path: Path, database_url: str) -> None:
    async with served(tmp_path, database_url) as run, httpx2.AsyncClient(trust_env=False) as browser:
        (one,) = await run.submit(ORGANISATION, CAMPAIGN, PAGE, action("1", "jane@example.org"))
        await browser.post(run.links.supporter(one["actionId"], "accept", one["contactRef"], doi=True))
        await until(lambda: run.waiting("acme.crm") == 1)  # the double opt-in
        answers = {
            path: await browser.get(run.ops + path) for path in ("/livez", "/readyz", "/healthz", "/metrics")
        }
        outside = await browser.get(f"{run.address}/metrics")

    assert outside.status_code == 404
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    state = answers["/healthz"].json()
    assert state["serving"]["database"] == "ok"
    assert set(state["serving"]["outbox"]) == {"waiting", "refused"}
    samples = set(answers["/metrics"].text.splitlines())
    assert 'flow_link_requests_total{result="decided"} 1.0' in samples
    assert 'flow_link_decisions_total{outcome="changed",verb="accept",who="supporter"} 1.0' in samples
    assert "flow_link_seconds_count 1.0" in samples
    assert "flow_database_up 1.0" in samples
    assert "jane" not in answers["/metrics"].text
