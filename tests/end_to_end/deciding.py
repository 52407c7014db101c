"""Supporters, moderators and programs who decide through `flow serve`, whatever is killed meanwhile."""

import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import anyio
import anyio.abc
import httpx2

from flow.links import Links, Verb
from flow.plumbing.processing import Processing
from flow.records.database import Database
from tests.broker.queues import until
from tests.end_to_end.campaigning import Campaigning
from tests.end_to_end.conftest import FLOW, environment
from tests.plumbing.signature_model import Deed

SECRET = "the-secret-that-signs-links-to-us"
TOKENS = {"acme": "acme-token-0123456789abcdef0123456", "brook": "brook-token-0123456789abcdef012345"}
SERVING = {
    "FLOW_LINK_SECRET": SECRET,
    "FLOW_API_TOKENS": "\n".join(f"{name} {token}" for name, token in TOKENS.items()),
}
PEOPLE = 32  # who decide at the same time
STATUSES = {"changed": 200, "unchanged": 200, "refused": 409, "unknown": 404}

Decision = tuple[str, Deed, Any]


class Service:
    """A `flow` process that goes on until it is stopped, and can be killed and started again."""

    def __init__(self, log: Path, begins: bytes, setting: dict[str, str], *arguments: str) -> None:
        self._log = log
        self._begins = begins
        self._environment = environment(**setting)
        self._process: anyio.abc.Process | None = None
        self._up = anyio.Event()
        self._starts = 0
        self.arguments = list(arguments)

    @property
    def said(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""

    async def start(self) -> None:
        """Start it, and see it begin."""
        with self._log.open("ab") as log:
            self._process = await anyio.open_process(
                [*FLOW, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
            )
        self._starts += 1
        await until(lambda: self.said.count(self._begins) == self._starts, 60)
        self._up.set()

    async def up(self) -> None:
        """Return once it runs."""
        await self._up.wait()

    async def restart(self) -> None:
        """Kill it, and start it again."""
        self._up = anyio.Event()
        await self.kill()
        await self.start()

    async def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, which it does in order."""
        assert self._process is not None
        self._process.terminate()
        with anyio.fail_after(60):
            assert await self._process.wait() == 0, self.said
        assert b"Traceback" not in self.said


def serving(folder: Path, setting: dict[str, str]) -> Service:
    """Return `flow serve`, not started yet; proxies tell it who asks."""
    options = ("--port", "0", "--ops-port", "0", "--trusted-proxy", "127.0.0.1", "--sweep-every", "0.2")
    return Service(folder / "serve.log", b"links are answered at", setting | SERVING, "serve", *options)


def sweeping(folder: Path, setting: dict[str, str]) -> Service:
    """Return `flow sweep`, not started yet."""
    return Service(folder / "sweep.log", b"sweeping", setting, "sweep", "--every", "0.2")


class Crowd:
    """Everybody who decides, at the same time; only decisions about one contact come one after another."""

    def __init__(
        self, campaign: Campaigning, database: Database, known: dict[int, tuple[int, str | None]]
    ) -> None:
        """*known*: the place in the input of each action, and its contact reference."""
        self._campaign = campaign
        self._ids = {number: id_ for id_, (number, _) in known.items()}
        self._references = {number: reference or "nobody" for number, reference in known.values()}
        self._processing = Processing(database)
        self._random = random.Random(campaign.random.random())
        self._done = 0
        self._client: httpx2.AsyncClient | None = None
        self._links = Links("http://127.0.0.1", SECRET)
        self.answers: Counter[str] = Counter()
        self.broken = 0
        """How many requests a kill has cut off; each was made again."""

    async def decide(
        self, decisions: Sequence[Decision], serve: Service, kills: dict[int, Callable[[], Awaitable[None]]]
    ) -> None:
        """Decide everything; once so many decisions are made, do what *kills* says, while others go on."""
        await serve.start()
        address = serve.said.partition(b"answered at ")[2].split()[0].decode()
        serve.arguments[serve.arguments.index("--port") + 1] = str(urlsplit(address).port)
        shards: list[list[Decision]] = [[] for _ in range(PEOPLE)]
        for decision in decisions:
            deed = decision[1]
            who = deed.person.email if deed.person else str(deed.number)
            shards[crc32(f"{deed.org.name} {who}".encode()) % PEOPLE].append(decision)
        async with (
            httpx2.AsyncClient(trust_env=False, base_url=address, timeout=60) as self._client,
            anyio.create_task_group() as tasks,
        ):
            for shard in shards:
                tasks.start_soon(self._shard, shard, serve, kills, tasks)
        assert not kills

    async def _shard(
        self,
        shard: list[Decision],
        serve: Service,
        kills: dict[int, Callable[[], Awaitable[None]]],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        for what, deed, how in shard:
            if what == "email":  # what the mailer does
                answer = await self._processing.email_status(self._ids[deed.number], how)
                assert answer.change == self._campaign.decide(what, deed, how), (what, deed, answer)
                self.answers[f"{what} {answer.change}"] += 1
            else:
                await self._through_a_link(what, deed, how, serve)
            self._done += 1
            if self._done in kills:
                tasks.start_soon(kills.pop(self._done))

    async def _through_a_link(self, what: str, deed: Deed, how: Any, serve: Service) -> None:
        verb: Verb = "accept" if what.startswith("accept") else "reject"
        supporter = what.endswith("person")
        if self._random.random() < 0.02:
            guess = self._links.supporter(self._ids[deed.number], verb, "guessed")
            assert (await self._ask("POST", guess, serve)).status_code == 404
        program = deed.org.name == "brook" and (supporter or self._random.random() < 0.5)
        if supporter:
            reference = self._references[deed.number]
            link = self._links.supporter(self._ids[deed.number], verb, reference, doi=bool(how))
        elif program:
            link = f"/link/a/{self._ids[deed.number]}/{verb}"
        else:
            link = self._links.moderator(self._ids[deed.number], verb)
        if program:
            headers = {"accept": "application/json", "authorization": f"Bearer {TOKENS['brook']}"}
            answer = await self._ask("GET", link, serve, **headers)
        else:
            if self._random.random() < 0.05:  # a scanner of mail
                assert (await self._ask("GET", link, serve)).status_code == 200
            answer = await self._ask("POST", link, serve)
        expected = self._campaign.decide(what, deed, how)
        assert answer.status_code == STATUSES[expected], (what, deed, expected, answer)
        if program:
            assert deed.person is not None
            told = answer.json()
            assert (told["supporter"], told["action"]) == (deed.person.status, deed.status), (what, deed)
        who = "program" if program else "supporter" if supporter else "moderator"
        self.answers[f"{what} by {who} {answer.status_code}"] += 1

    async def _ask(self, method: str, link: str, serve: Service, **headers: str) -> httpx2.Response:
        """Ask from an address of its own, and again when the server was killed in the middle."""
        assert self._client is not None
        address = ".".join(["10", *(str(self._random.randrange(256)) for _ in range(3))])
        path = link.removeprefix("http://127.0.0.1")
        while True:
            await serve.up()
            try:
                return await self._client.request(
                    method, path, headers={"x-forwarded-for": address} | headers
                )
            except httpx2.TransportError:
                self.broken += 1
