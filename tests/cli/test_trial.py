"""`flow run --dry-run`, `--dump`, `--dump-only` and `--from`, as processes."""

import json
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from flow.broker.publisher import Publisher
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.message import Message
from flow.plumbing.setup import set_up, topology_for
from flow.trial.borrowing import borrowed
from tests.broker.queues import Received, until
from tests.cli.conftest import Ended, end_of, run_flow, start_flow, until_ready

MINE = """
from pathlib import Path
from flow import Batch, Batching, Message, Pipeline, Reject, Retry, Settings, Skip
from flow.schema import ActionMessage

class Mine(Pipeline[ActionMessage]):
    queue = "acme.crm"
    batching = Batching(size=2, timeout=1.0)

    def handle_message(self, message):
        if message.body.action_id == 3:
            raise Skip("three")
        if message.body.action_id == 4:
            raise Retry("four")
        return message.body

    def batch_key(self, message):
        return message.body.contact.email, message.body.action_page_id

    def handle_batch(self, batch):
        with Path(__file__).with_name("delivered").open("a") as file:
            for body in batch.bodies:
                file.write(f"{body.action_id}\\n")
"""


SETTINGS = """
    settings: "Needed"

class Needed(Settings):
    prefix = "NEEDED"
    url: str
"""
CLAIMED = """
    claim = Claim(key=lambda message: str(message.body.action_id), unknown="park")

    async def handle_batch(self, batch):
        for message in batch:
            async with batch.sending(message):
                with Path(__file__).with_name("delivered").open("a") as file:
                    file.write(f"{message.body.action_id}\\n")
"""
STUCK = """async def handle_batch(self, batch):
        import anyio
        Path(__file__).with_name("delivered").write_text("1")
        await anyio.sleep_forever()

    def unused(self, batch):"""


def body(number: int) -> bytes:
    action = {
        "schema": "proca:action:2",
        "stage": "deliver",
        "actionId": number,
        "actionPageId": 3,
        "campaignId": 4,
        "orgId": 2,
        "action": {"actionType": "register", "createdAt": "2024-05-01T12:00:00Z"},
        "actionPage": {"name": "stop/it", "locale": "en"},
        "campaign": {"name": "it", "title": "It"},
        "contact": {"contactRef": "ref", "email": "alice@example.org"},
        "privacy": {"withConsent": True},
    }
    return json.dumps(action).encode()


class Folder:
    """A folder with a pipeline in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "mine.py").write_text(MINE)

    async def run(self, *arguments: str, url: str | None = None, **more: str) -> Ended:
        return await run_flow("run", "mine", *arguments, url=url, PYTHONPATH=str(self.path), **more)

    def claim(self) -> None:
        """Let the pipeline have a claim."""
        code = MINE.replace("import Batch", "import Claim, Batch").replace("def handle_batch", "def unused")
        (self.path / "mine.py").write_text(code + CLAIMED)

    @property
    def delivered(self) -> list[int]:
        path = self.path / "delivered"
        return sorted(int(line) for line in path.read_text().split()) if path.exists() else []

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "actions.jsonl"
    path.write_bytes(b"\n".join(body(number) for number in range(1, 6)))
    return path


@pytest.mark.anyio
class TestFromAFile:
    async def test_claims_need_a_database(self, folder: Folder, source: Path) -> None:
        folder.claim()

        ended = await folder.run("--from", str(source))

        assert ended.code == 78
        assert ended.err.endswith(
            'Mine.claim parks what is unknown (unknown = "park"), so it must outlive the process: '
            "set FLOW_DATABASE_URL\n"
        )
        assert (folder.delivered, sorted(source.parent.glob("*.jsonl"))) == ([], [source])

    async def test_what_is_claimed_is_delivered_once_however_often_it_is_fed(
        self, folder: Folder, source: Path, database_url: str
    ) -> None:
        folder.claim()
        twice = source.with_name("twice.jsonl")
        shutil.copyfile(source, twice)

        await folder.run("--from", str(source), FLOW_DATABASE_URL=database_url)
        await folder.run("--from", str(twice), FLOW_DATABASE_URL=database_url)

        assert folder.delivered == [1, 2, 5]
        rows = folder.lines("twice.outcomes.jsonl")
        assert sorted(row["outcome"] for row in rows) == ["retrying", *["skipped"] * 4]

    async def test_it_is_delivered_without_a_broker(self, folder: Folder, source: Path) -> None:
        ended = await folder.run("--from", str(source))

        rows = folder.lines("actions.outcomes.jsonl")
        assert ended.code == 1
        assert "received 5 = 3 delivered + 1 skipped + 1 retrying + 0 parked" in ended.out
        assert "1 messages were not delivered" in ended.err
        assert folder.delivered == [1, 2, 5]
        assert {(row["record"], row["outcome"]) for row in rows} == {
            ("1", "delivered"),
            ("2", "delivered"),
            ("3", "skipped"),
            ("4", "retrying"),
            ("5", "delivered"),
        }
        assert {row["record"]: row for row in rows}["4"] == {
            "place": "actions.jsonl:4",
            "record": "4",
            "outcome": "retrying",
            "reason": "four",
            "attempt": 1,
        }

    async def test_what_was_not_delivered_can_be_fed_again(self, folder: Folder, source: Path) -> None:
        await folder.run("--from", str(source))
        failed = folder.path / "actions.failed.jsonl"
        # Of another length: bytecode that was kept in the same second would be taken for this one's.
        (folder.path / "mine.py").write_text(MINE.replace("== 4", "== 4000"))

        again = await folder.run("--from", str(failed))

        assert stat.S_IMODE(failed.stat().st_mode) == 0o600
        assert (again.code, again.err) == (0, "")
        assert folder.delivered == [1, 2, 4, 5]

    async def test_results_of_another_run_are_not_overwritten(self, folder: Folder, source: Path) -> None:
        await folder.run("--from", str(source))
        before = (folder.path / "actions.outcomes.jsonl").read_bytes()

        again = await folder.run("--from", str(source))

        assert again.code == 2
        assert "exists already: move away what another run left there" in again.err
        assert (folder.path / "actions.outcomes.jsonl").read_bytes() == before
        assert folder.delivered == [1, 2, 5]

    async def test_what_a_signal_leaves_undone_can_be_fed_again(self, folder: Folder, source: Path) -> None:
        """Also what was not read yet: the window holds 2 messages."""
        stuck = MINE.replace("def handle_batch(self, batch):", STUCK)
        (folder.path / "mine.py").write_text(stuck)
        command = ["run", "mine", "--from", str(source), "--prefetch", "2", "--shutdown-timeout", "1"]
        process = await start_flow(*command, url="", PYTHONPATH=str(folder.path))
        await until(lambda: folder.delivered)
        ended = await end_of(process, signal.SIGTERM)

        rows = {row["record"]: row["outcome"] for row in folder.lines("actions.outcomes.jsonl")}
        fed_again = [line["actionId"] for line in folder.lines("actions.failed.jsonl")]
        assert ended.code == 1, ended.err
        assert "Traceback" not in ended.err
        assert rows["1"] == rows["2"] == "returned"
        assert sorted(fed_again) == [1, 2, 3, 4, 5]

    async def test_a_lifespan_that_fails_leaves_no_results(self, folder: Folder, source: Path) -> None:
        broken = "\n    def lifespan(self):\n        raise OSError('alice@example.org')\n"
        (folder.path / "mine.py").write_text(MINE + broken)

        ended = await folder.run("--from", str(source))

        assert ended.code == 1
        assert "mine ended: OSError" in ended.err
        assert "alice" not in ended.err
        assert sorted(path.name for path in folder.path.glob("actions.*")) == ["actions.jsonl"]

    async def test_a_dry_run_delivers_and_writes_nothing(self, folder: Folder, source: Path) -> None:
        ended = await folder.run("--from", str(source), "--dry-run", "--limit", "4")

        assert ended.code == 0
        assert ended.err.endswith(" WARNING mine: 1 message is tried again: four\n")
        assert len(ended.err.splitlines()) == 1
        assert "batch of 2 for default, key (str, int), closed by size" in ended.out
        assert "skipped record 3: three" in ended.out
        assert "retrying record 4: four" in ended.out
        assert "of 4 messages 2 would be delivered in 1 batches, 1 skipped, 1 retrying" in ended.out
        assert '"email": "<text of 17>"' in ended.out
        assert "null" not in ended.out
        assert "alice" not in ended.out
        assert folder.delivered == []
        assert sorted(path.name for path in folder.path.glob("actions.*")) == ["actions.jsonl"]

    async def test_a_dry_run_shows_personal_data_only_when_asked(self, folder: Folder, source: Path) -> None:
        ended = await folder.run("--from", str(source), "--dry-run", "--show-personal-data")

        assert "key ('alice@example.org', 3)" in ended.out
        assert '"email": "alice@example.org"' in ended.out

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--dump", "copies", "--dry-run"],
            ["--dump-only", "copies", "--from", "mine.py"],
            ["--limit", "3"],
            ["--show-personal-data"],
            ["--from", "no-such-file"],
        ],
    )
    async def test_options_that_do_not_go_together_are_refused(
        self, folder: Folder, arguments: list[str]
    ) -> None:
        arguments = [str(folder.path / one) if one == "mine.py" else one for one in arguments]

        ended = await folder.run(*arguments, url="amqp://guest:guest@127.0.0.1:1/")

        assert ended.code == 2, ended.err
        assert "Traceback" not in ended.err


async def held(url: BrokerUrl, queue: str, count: int) -> list[Message[Any]]:
    """Look at all messages of *queue* and give them back."""
    async with borrowed(url, queue, count, name="test") as messages:
        return [message async for message in messages]


@pytest.fixture
async def filled(url: BrokerUrl, publisher: Publisher) -> BrokerUrl:
    """The queue acme.crm with the bodies 1 to 5 and one that cannot be read."""
    await set_up(url, topology_for(["acme"], retry_delay=0.2))
    for number in range(1, 6):
        await publisher.publish("deliver", "acme.custom.action", body(number))
    await publisher.publish("deliver", "acme.custom.action", b"no JSON")
    await until_ready(url, "acme.crm", lambda count: count == 6)
    return url


@pytest.mark.anyio
@pytest.mark.broker
class TestOnAQueue:
    async def test_a_dry_run_leaves_the_queue_as_it_was(
        self, folder: Folder, filled: BrokerUrl, amqp_url: str
    ) -> None:
        """It ends although there are fewer messages than its limit."""
        ended = await folder.run("--dry-run", "--limit", "100", url=amqp_url)

        await until_ready(filled, "acme.crm", lambda count: count == 6)
        messages = await held(filled, "acme.crm", 6)
        assert ended.code == 0, ended.err
        assert "of 6 messages 3 would be delivered in 2 batches, 1 skipped, 1 retrying, 1 parked" in ended.out
        assert "the messages are back in acme.crm" in ended.err
        assert "parked <" not in ended.err
        assert folder.delivered == []
        assert sorted(message.raw for message in messages) == sorted(
            [b"no JSON", *(body(number) for number in range(1, 6))]
        )
        assert all(message.redelivered and message.attempt == 1 for message in messages)

    async def test_a_dry_run_takes_no_more_than_its_limit(
        self, folder: Folder, filled: BrokerUrl, amqp_url: str
    ) -> None:
        ended = await folder.run("--dry-run", "--limit", "2", url=amqp_url)

        assert ended.out.splitlines()[-1].startswith("of 2 messages")

    async def test_a_dry_run_of_a_missing_queue_is_one_sentence(
        self, folder: Folder, filled: BrokerUrl, amqp_url: str
    ) -> None:
        ended = await folder.run("--dry-run", "--queue", "no.crm", url=amqp_url)

        assert ended.code == 78
        assert ended.err.count("\n") == 1
        assert "no.crm" in ended.err

    async def test_copies_are_made_and_the_messages_given_back(
        self, folder: Folder, filled: BrokerUrl, amqp_url: str
    ) -> None:
        """Settings are not needed for that."""
        copies = folder.path / "copies"
        (folder.path / "mine.py").write_text(MINE + SETTINGS)
        ended = await folder.run("--dump-only", str(copies), url=amqp_url)
        (folder.path / "mine.py").write_text(MINE)
        fed = await folder.run("--from", str(copies))

        await until_ready(filled, "acme.crm", lambda count: count == 6)
        assert ended.code == 0, ended.err
        assert "copied 6 messages of acme.crm" in ended.out
        assert len(list(copies.iterdir())) == 6
        assert fed.code == 1
        assert folder.delivered == [1, 2, 5]
        assert len(folder.lines("copies.outcomes.jsonl")) == 6

    async def test_a_run_with_copies_consumes_as_always(
        self, folder: Folder, filled: BrokerUrl, amqp_url: str
    ) -> None:
        """What cannot be read is copied too."""
        copies = folder.path / "copies"
        command = ["run", "mine", "--no-ops", "--retry-delay", "0.2", "--dump", str(copies)]
        process = await start_flow(*command, url=amqp_url, PYTHONPATH=str(folder.path))
        await until_ready(filled, "system.dead", lambda count: count == 1)
        await until_ready(filled, "acme.crm", lambda count: count == 0)
        await until(lambda: folder.delivered == [1, 2, 5])
        ended = await end_of(process, signal.SIGTERM)

        assert ended.code == 0, ended.err
        assert {path.read_bytes() for path in copies.iterdir()} == {b"no JSON", *map(body, range(1, 6))}

    async def test_a_folder_that_cannot_be_written_to_ends_before_connecting(
        self, folder: Folder, amqp_url: str
    ) -> None:
        below = folder.path / "mine.py" / "copies"
        for option in ("--dump", "--dump-only"):
            ended = await folder.run(option, str(below), "--no-ops", url="amqp://guest:guest@127.0.0.1:1/")

            assert (ended.code, ended.err.count("\n")) == (78, 1)
            assert "cannot be written to" in ended.err


@pytest.mark.anyio
@pytest.mark.broker
async def test_borrowed_messages_are_given_back_when_a_look_breaks_off(filled: BrokerUrl) -> None:
    async def look() -> None:
        async with borrowed(filled, "acme.crm", 6, name="test") as messages:
            async for _ in messages:
                raise KeyError("broken off")

    with pytest.raises(KeyError):
        await look()

    received = Received()
    session = await Session.open(filled, {"acme.crm": 10}, received)
    await received.reach(6)
    await session.close()
