"""Signatures in three languages through every pipeline, each process killed once: all is as the model says.

FLOW_TEST_SIGNATURES sets how many signatures there are (120), FLOW_TEST_SEED repeats a run. From 1000 on the
mailers have more connections and another pace, as docs/mail.md shows it. With FLOW_TEST_REAL_TIME=1 every
pipeline runs as it stands, and what a killed process had taken is waited for, which takes six minutes; else
the time is put forward in the database.
"""

import json
import os
import random
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpx2
import pytest
from sqlalchemy import func, select, text, update

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.parking import read_parked
from flow.plumbing.park import opened_park, parked_count
from flow.records.database import Database
from flow.records.tables import claims, ledger, outbox
from tests.broker.queues import connected, eventually, until
from tests.end_to_end.conftest import Flow, FlowProcess, environment
from tests.nodes.rabbitmq_node import free_ports
from tests.records.signatures import START
from tests.targets.mail_server import Postbox, Received, mail_server
from tests.targets.sqs_server import SqsServer

SIZE = int(os.environ.get("FLOW_TEST_SIGNATURES", "120"))
REAL_TIME = os.environ.get("FLOW_TEST_REAL_TIME") == "1"
LARGE = SIZE >= 1000
FAST = LARGE and not REAL_TIME
PATIENCE = 90 + SIZE / 4 + (400 if REAL_TIME else 0)  # seconds; 20 mails a second, claims of six minutes

pytestmark = [pytest.mark.anyio, pytest.mark.broker, pytest.mark.timeout(120 + PATIENCE)]

CLICKERS = 16
MAILED = {"sign": "confirm", "moderate": "moderate"}  # which process sends a template; others: thank_you
PLACES = {
    "confirm": "system.email.confirm",
    "thank_you": "system.email.thankyou",
    "moderate": "creek.moderate",
}
CONNECTIONS = {
    "system.email.confirm": 8 if FAST else 2,
    "system.email.thankyou": 8 if FAST else 2,
    "creek.moderate": 1,
}
MAILERS = """
from flow import Batching
from pipelines import confirm, thank_you


class Confirm(confirm.Confirm):
    batching = Batching(size=50, timeout=2.0, concurrency=8)


class ThankYou(thank_you.ThankYou):
    batching = Batching(size=50, timeout=2.0, concurrency=8)
"""
TESTS, MODERATORS = "tests@example.org", "moderators@example.org"
FOLDERS = {"en": "default", "de_AT": "de", "de": "de", "fr": "fr"}
NAMES = ["Ada", "Žofia", "李", "Αλέκος", "O'Neil", "Zoë & Co"]
SENDERS = {"acme": "mail@example.org", "brook": "brook@example.org", "creek": "mail@example.org"}
PAGES = {"acme": ("en", "de_AT", "fr"), "brook": ("en", "de", "fr"), "creek": ("en", "de", "fr")}
QUEUES = [*CONNECTIONS, "system.sqs", *(f"{org}.crm" for org in PAGES)]
# organisation, locale: the templates for who signed first and for who signed before
THANKS = {
    ("acme", "en"): ("thanks", "again"),
    ("acme", "de_AT"): ("thanks", "again"),
    ("acme", "fr"): ("thanks", "again"),
    ("brook", "en"): ("thanks", None),
    ("brook", "de"): ("thanks", "again"),
    ("brook", "fr"): (None, None),
    ("creek", "en"): ("thanks", "again"),
    ("creek", "de"): ("thanks", None),
    ("creek", "fr"): ("thanks", "again"),
}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What somebody does: signs; and what they, or the moderators of creek, then click."""

    number: int
    org: str
    locale: str
    email: str | None
    name: str
    testing: bool
    consent: bool
    opt_in: bool | None
    plan: str
    """`accept`, `twice`, `regret` (accept, then reject), `reject`, `never`."""

    @property
    def accepts(self) -> bool:
        return self.plan in ("accept", "twice", "regret")

    @property
    def exists(self) -> bool:
        """Whether mail to the address arrives."""
        return self.testing or not (self.email or "").startswith("gone")

    @property
    def line(self) -> dict[str, Any]:
        """What `flow submit` reads."""
        line: dict[str, Any] = {
            "actionPage": f"{self.org}/{self.locale}",
            "submission": f"form-{self.number}",
            "testing": self.testing,
            "customFields": {"number": self.number, "interests": ["water", "bees"]},
        }
        if self.email is None:
            return line | {"actionType": "share"}
        line["contact"] = {"email": self.email, "firstName": self.name, "lastName": "Waters"}
        line["privacy"] = {"withConsent": self.consent, "optIn": self.opt_in}
        return line

    @property
    def asked(self) -> str | None:
        """The template of the mail whose links decide; None: nobody is asked."""
        if self.email is None or self.org == "brook" or (self.org == "creek" and self.testing):
            return None
        return "sign" if self.org == "acme" else "moderate"

    def mail(self, template: str) -> "Mail":
        to = TESTS if self.testing else MODERATORS if template == "moderate" else str(self.email)
        return (template, FOLDERS[self.locale], self.number, to, SENDERS[self.org], self.name)


Mail = tuple[str, str, int, str, str, str]
"""Template, folder of the language, number of the signature, to, from, name of the person."""


def invented(chance: random.Random) -> list[Signature]:
    """Return what people do."""
    found: list[Signature] = []
    for number in range(SIZE):
        org = chance.choice(list(PAGES))
        known = [one.email for one in found if one.org == org and one.email]
        email: str | None = f"{'gone' if chance.random() < 0.04 else 'n'}{number}@example.org"
        if known and chance.random() < 0.15:
            email = chance.choice(known)
        found.append(
            Signature(
                number=number,
                org=org,
                locale=chance.choice(PAGES[org]),
                email=None if chance.random() < 0.04 else email,
                name=chance.choice(NAMES),
                testing=chance.random() < 0.05,
                consent=chance.random() < 0.9,
                opt_in=chance.choice((True, False, None)),
                plan=chance.choices(("accept", "twice", "regret", "reject", "never"), (60, 10, 5, 10, 15))[0],
            )
        )
    return found


@dataclass
class Expected:
    """What must be there at the end."""

    mails: set[Mail] = field(default_factory=set)
    bounced: Counter[str] = field(default_factory=Counter)
    """How many mails each queue could not bring to anybody."""
    crm: dict[str, Counter[Any]] = field(default_factory=lambda: {org: Counter() for org in PAGES})
    """Signatures (number, address, name) and news (address, whether mail may go there)."""
    sqs: set[Any] = field(default_factory=set)
    """Signatures (number) and news (number, status)."""


def expected(signatures: list[Signature], clicked: list[int]) -> Expected:
    """Work out what must be there, by other means than flow does.

    *clicked* are the numbers of those who accepted, in their order.
    """
    found = Expected()
    people = [one for one in signatures if one.email is not None]
    for one in people:
        if one.asked == "sign" and not one.exists:
            news(found, one, "bounce", "system.email.confirm")
        elif one.asked is not None:
            found.mails.add(one.mail(one.asked))
    by_number = {one.number: one for one in signatures}
    confirmed = [number for number in clicked if by_number[number].org == "acme"]
    ranks: Counter[Any] = Counter()
    for one in [*(one for one in people if one.org != "acme"), *(by_number[one] for one in confirmed)]:
        again = False
        if not one.testing:
            again = ranks[one.org, one.email] > 0
            ranks[one.org, one.email] += 1
        if one.org == "creek" and one.number not in clicked:
            continue  # a supporter as any other, but the action was not accepted
        if not one.testing:
            found.sqs.add(one.number)
            if one.org != "acme" or one.opt_in:
                found.crm[one.org][one.number, one.email, one.name] += 1
        if one.org == "acme" and one.opt_in:
            news(found, one, "double_opt_in")
        template = THANKS[one.org, one.locale][again]
        if one.consent and template is not None:
            if one.exists:
                found.mails.add(one.mail(template))
            else:
                news(found, one, "bounce", "system.email.thankyou")
    return found


def news(found: Expected, one: Signature, status: str, queue: str = "") -> None:
    """Add what an `email_status` event brings about; one of a test tells nobody anything."""
    if queue:
        found.bounced[queue] += 1
    if not one.testing:
        found.sqs.add((one.number, status))
        found.crm[one.org][one.email, status == "double_opt_in"] += 1


class Templates:
    """Four templates in three languages, whose mails can be read back."""

    ASKING = "{{ accept_link }}\n{{ reject_link }}\n"

    def __init__(self, folder: Path) -> None:
        for template in ("sign", "moderate", "thanks", "again"):
            for language in ("default", "de", "fr"):
                place = folder / template / language
                place.mkdir(parents=True)
                subject = f"{template}|{language}|{{{{ custom_fields.number }}}}|ą"
                body = f"{{{{ first_name }}}}\n{self.ASKING if template in MAILED else ''}"
                (place / "subject.txt").write_text(subject)
                (place / "body.txt").write_text(body)
                (place / "body.html").write_text(body.replace("\n", "<br>\n"))

    @staticmethod
    def read(received: Received) -> Mail:
        template, language, number, _ = received.mail["Subject"].split("|")
        name, *links = received.text().splitlines()
        assert (len(links) == 2) == (template in MAILED)
        sender = received.mail["From"].addresses[0].addr_spec
        return (template, language, int(number), received.to[0], sender, name)


def definitions() -> list[dict[str, Any]]:
    """Return three organisations: one asks to confirm, the next delivers at once, the last moderates."""
    found: list[dict[str, Any]] = [
        {"type": "organisation", "name": "acme", "title": "Acme", "supporterConfirm": True},
        {"type": "organisation", "name": "brook", "title": "Brook", "mailFrom": "Brook <brook@example.org>"},
        {"type": "organisation", "name": "creek", "title": "Creek", "actionConfirm": True},
    ]
    for org, locales in PAGES.items():
        found.append({"type": "campaign", "name": f"rivers_{org}", "organisation": org, "title": "Rivers"})
        for locale in locales:
            page = {"type": "actionPage", "name": f"{org}/{locale}", "campaign": f"rivers_{org}"}
            first, again = THANKS[org, locale]
            page |= {"organisation": org, "locale": locale, "supporterConfirmTemplate": "sign"}
            found.append(page | {"thankYouTemplate": first, "duplicateTemplate": again})
    return found


@dataclass
class World:
    """The servers around flow, its processes, and what became of everything so far."""

    flow: Flow
    database: Database
    broker: BrokerUrl
    postbox: Postbox
    crms: dict[str, CrmServer]
    sqs: SqsServer
    queue_url: str
    clicks: list[int] = field(default_factory=list)
    answered: int = 0
    stored: list[dict[str, Any]] = field(default_factory=list)
    """What is in SQS."""
    ids: dict[int, int] = field(default_factory=dict)
    """The number of each signature, by the id of its action."""
    killed: set[str] = field(default_factory=set)
    """The processes that were killed in the middle of a mail."""
    read: list[Mail] = field(default_factory=list)

    def mails(self) -> list[Mail]:
        """Return the mails that came."""
        self.read += [Templates.read(one) for one in self.postbox.received[len(self.read) :]]
        return self.read

    async def look(self) -> None:
        """Look into SQS."""
        self.stored = await anyio.to_thread.run_sync(self.sqs.stored, self.queue_url)

    async def forwards(self) -> bool:
        """Tell whether some is in SQS, and noted."""
        noted = select(func.count()).select_from(ledger).where(ledger.c.queue == "system.sqs")
        async with self.database.reading() as connection:
            return (await connection.scalar(noted) or 0) > SIZE // 10

    async def parked(self) -> dict[str, list[tuple[str, int]]]:
        """Return reason and number of what is parked, by queue."""
        found = defaultdict(list)
        if await parked_count(self.broker):
            async with opened_park(self.broker, 65_535) as park:
                async for message in park.messages():
                    told = read_parked(message)
                    number = self.ids[json.loads(message.raw)["actionId"]]
                    found[told.queue or ""].append((told.reason, number))
        return found


class Process:
    """One process of flow, which is killed once and started again."""

    def __init__(self, world: World, name: str, pipeline: str, *arguments: str, **more: str) -> None:
        """Take its *name* for the database, the name of its *pipeline*, and how it is started."""
        self.world = world
        self._name = name
        self._pipeline = pipeline
        self._arguments = arguments
        url = f"{world.flow.environment['FLOW_DATABASE_URL']}?application_name={name}"
        self._environment = more | {"FLOW_DATABASE_URL": url}
        self.running: FlowProcess

    async def start(self, says: str) -> None:
        await self._start()
        await self.running.says(says, 60)

    async def _start(self) -> None:
        self.running = await self.world.flow.start(*self._arguments, **self._environment)

    async def _is_gone(self) -> bool:
        """Tell whether the database has done all that it asked for."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        async with self.world.database.reading() as connection:
            asked = text(f"{query} AND application_name = :name").bindparams(name=self._name)
            return bool(await connection.scalar(asked) == 0)

    async def killed(self) -> None:
        """Wait until it is dead, let its claims end, and start it again."""
        assert await self.running.end() == -signal.SIGKILL, self.running.lines
        await eventually(self._is_gone)
        if not REAL_TIME:
            async with self.world.database.begin() as connection:  # as if the time had passed
                of = (claims.c.pipeline == self._pipeline) & (claims.c.state != "done")
                await connection.execute(update(claims).where(of).values(until=START))
                if self._pipeline == "serve":
                    await connection.execute(update(outbox).values(claimed_until=None))
        await self._start()

    async def kill_when(self, reached: Callable[[], bool]) -> None:
        """Kill it once something is *reached*."""
        await until(reached, PATIENCE)
        self.running.signal(signal.SIGKILL)
        await self.killed()

    async def kill_in_mid_call(self, crm: CrmServer) -> None:
        """Kill it when the *crm* has applied something, and never answers."""
        crm.faults.silent = True
        await self.kill_when(lambda: bool(crm.records))
        crm.faults.silent = False


class People:
    """Who gets mail to confirm, and presses the buttons."""

    def __init__(self, world: World, signatures: list[Signature]) -> None:
        self.world = world
        self.signatures = signatures
        self._locks: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._limit = anyio.CapacityLimiter(CLICKERS)
        self.busy = 0

    async def read_mail(self) -> None:
        """Do with each mail what its reader plans."""
        done = 0
        async with (
            httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0)) as client,
            anyio.create_task_group() as tasks,
        ):
            while True:
                while len(self.world.postbox.received) == done:  # noqa: ASYNC110 (it has no event)
                    await anyio.sleep(0.01)
                received = self.world.postbox.received[done]
                done += 1
                if Templates.read(received)[0] in MAILED:
                    self.busy += 1
                    tasks.start_soon(self._read, received, client)

    async def _read(self, received: Received, client: httpx2.AsyncClient) -> None:
        template, _, number, *_ = Templates.read(received)
        one = self.signatures[number]
        accept, reject = received.text().split()[-2:]
        assert accept.endswith("?doi=1") == (template == "sign" and one.opt_in is True)
        async with self._locks[str(one.email)], self._limit:  # one person clicks one link after another
            if one.accepts:
                await self._press(client, accept, 200)
                self.world.clicks.append(one.number)
            if one.plan == "twice":
                await self._press(client, accept, 200)
            if one.plan == "regret":
                await self._press(client, reject, 409)
            if one.plan == "reject":
                await self._press(client, reject, 200)
        self.busy -= 1

    async def _press(self, client: httpx2.AsyncClient, link: str, status: int) -> None:
        """Press the button, and again while nobody answers."""
        while True:
            try:
                answer = await client.post(link, timeout=30)
            except httpx2.TransportError:
                await anyio.sleep(0.2)
                continue
            assert answer.status_code == status, (link, answer.status_code)
            self.world.answered += 1
            return


def settings(world: World, address: str, templates: Path, database_url: str) -> dict[str, str]:
    return {
        "FLOW_DATABASE_URL": database_url,
        "FLOW_LINK_SECRET": "the-secret-that-signs-links-to-us",
        "MAIL_HOST": "127.0.0.1",
        "MAIL_PORT": str(world.postbox.port),
        "MAIL_SECURITY": "none",
        "MAIL_SENDER": "mail@example.org",
        "MAIL_LINK_URL": address,
        "MAIL_TEMPLATES": str(templates),
        "MAIL_TEST_ADDRESS": TESTS,
        "MODERATE_TO": MODERATORS,
        "MODERATE_LINK_URL": address,
        **({"MAIL_RATE": "100", "MODERATE_RATE": "100"} if FAST else {}),
        "SQS_QUEUE_URL": world.queue_url,
        "SQS_REGION": "eu-central-1",
        "SQS_ENDPOINT": world.sqs.url,
    }


@asynccontextmanager
async def opened_world(
    amqp_url: str, database_url: str, sqs: SqsServer, folder: Path
) -> AsyncIterator[tuple[World, anyio.abc.TaskGroup]]:
    async with (
        Database.opened(database_url) as database,
        mail_server() as postbox,
        CrmServer() as acme,
        CrmServer() as brook,
        CrmServer() as creek,
        anyio.create_task_group() as listening,
        anyio.create_task_group() as tasks,
    ):
        flow = Flow(listening, environment(AMQP_URL=amqp_url, FLOW_RETRY_DELAY="1"), folder)
        crms = {"acme": acme, "brook": brook, "creek": creek}
        queue = sqs.queue(f"signatures-{random.randrange(10**9)}")
        world = World(flow, database, BrokerUrl.parse(amqp_url), postbox, crms, sqs, queue)
        try:
            yield world, tasks
        finally:
            tasks.cancel_scope.cancel()
            await flow.ended()


async def set_up(flow: Flow) -> None:
    assert (await flow("setup", "--retry-delay", "1")).returncode == 0

    async def add(org: str) -> None:
        moderating = ["--moderate"] if org == "creek" else []
        assert (await flow("org", "add", org, "--crm", "--sqs", *moderating)).returncode == 0

    async with anyio.create_task_group() as adding:
        for org in PAGES:
            adding.start_soon(add, org)


async def submit(world: World, signatures: list[Signature], chance: random.Random) -> None:
    """Submit everything, some of it twice."""
    lines = [*definitions()]
    for one in signatures:
        lines.append(one.line)
        if chance.random() < 0.05:
            lines.append(chance.choice(signatures[: one.number + 1]).line)
    (world.flow.folder / "signatures.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    submitting = await world.flow.start("submit", "signatures.jsonl", "--results", "results.jsonl")
    assert await submitting.end(PATIENCE) == 0, submitting.lines
    for line in (world.flow.folder / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        world.ids[result["actionId"]] = int(result["submission"].removeprefix("form-"))
    assert sorted(world.ids.values()) == list(range(SIZE))


async def started(world: World, port: int) -> dict[str, Process]:
    """Start every process as users do."""
    serve = ("serve", "--port", str(port), "--ops-port", "0", "--requests", "100000", "--sweep-every", "1")
    crm = {
        org: {"CRM_URL": one.url, "CRM_TOKEN": one.token, "CRM_MODE": mode}
        for (org, one), mode in zip(world.crms.items(), ("opt_in", "all", "all"), strict=True)
    }
    confirm, thank_you = "pipelines.confirm", "pipelines.thank_you"
    if FAST:
        (world.flow.folder / "mailers.py").write_text(MAILERS)
        confirm, thank_you = "mailers:Confirm", "mailers:ThankYou"
    processes = {
        "serve": Process(world, "serve", "serve", *serve),
        "confirm": Process(world, "confirm", "confirm", "run", confirm),
        "thank_you": Process(world, "thank_you", "thank_you", "run", thank_you),
        "moderate": Process(
            world, "moderate", "moderate", "run", "pipelines.moderate", "--queue", "creek.moderate"
        ),
        **{
            org: Process(world, org, "crm", "run", "pipelines.crm", "--queue", f"{org}.crm", **crm[org])
            for org in PAGES
        },
        "sqs": Process(world, "sqs", "sqs", "run", "pipelines.sqs"),
    }
    async with anyio.create_task_group() as starting:
        for name, process in processes.items():
            starting.start_soon(process.start, "links are answered" if name == "serve" else " consumes ")
    return processes


def kill_in_mid_mail(
    world: World, processes: dict[str, Process], chance: random.Random
) -> Callable[[Any], str | None]:
    """Return a way to answer whole mails: one of each mailer with the death of who sent it."""
    seen: Counter[str] = Counter()
    arrives = {mailer: chance.random() < 0.5 for mailer in PLACES}

    def answer(envelope: Any) -> str | None:
        subject = message_from_bytes(envelope.content, policy=default)["Subject"]
        mailer = MAILED.get(subject.split("|")[0], "thank_you")
        seen[mailer] += 1
        if mailer in world.killed or seen[mailer] < SIZE // 12:
            return None
        world.killed.add(mailer)
        processes[mailer].running.signal(signal.SIGKILL)
        return None if arrives[mailer] else "451 4.3.0 never heard"

    return answer


async def kill_each(world: World, processes: dict[str, Process], chance: random.Random) -> None:
    """Kill each process in the middle of its work."""
    world.postbox.recipient = lambda to: "550 5.1.1 unknown" if to.startswith("gone") else None
    world.postbox.content = kill_in_mid_mail(world, processes, chance)

    async def mailer(name: str) -> None:
        await until(lambda: name in world.killed, PATIENCE)
        await processes[name].killed()

    async def forwarder() -> None:
        await eventually(world.forwards, PATIENCE)
        await processes["sqs"].kill_when(lambda: True)

    async with anyio.create_task_group() as tasks:
        for name in PLACES:
            tasks.start_soon(mailer, name)
        tasks.start_soon(processes["serve"].kill_when, lambda: world.answered > SIZE // 8)
        tasks.start_soon(forwarder)
        for org, crm in world.crms.items():
            tasks.start_soon(processes[org].kill_in_mid_call, crm)


def told(crm: CrmServer, ids: dict[int, int]) -> Counter[Any]:
    """Return what a CRM holds, in the words of the model."""
    found: Counter[Any] = Counter()
    for name, item in crm.records.items():
        email = item["contact"]["email"]
        if item["subscribe"] is not None:
            found[email, item["subscribe"]] += 1
        else:
            found[ids[int(name.removeprefix("action-"))], email, item["contact"]["firstName"]] += 1
    return found


def forwarded(message: dict[str, Any], ids: dict[int, int]) -> Any:
    """Return what a message in SQS is, in the words of the model."""
    body = json.loads(message["Body"])
    attributes = {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}
    assert attributes["Schema"] == body["schema"]
    number = ids[body["actionId"]]
    if body["schema"] == "proca:event:2":
        assert attributes["Stage"] == "email_status"
        return number, body["supporter"]["privacy"]["emailStatus"]
    assert attributes["Stage"] == "deliver"
    return number


class Account:
    """What is there, compared with what must be."""

    def __init__(self, world: World, people: People, parked: dict[str, list[tuple[str, int]]]) -> None:
        self.world = world
        self.parked = parked
        self.mails = Counter(world.mails())
        self.unknown = {
            queue: {number for reason, number in several if reason.startswith("outcome unknown")}
            for queue, several in parked.items()
        }
        unheard = {
            number
            for template, mailer in MAILED.items()
            for number in self.unknown.get(PLACES[mailer], set())
            - {mail[2] for mail in self.mails if mail[0] == template}
        }
        self.model = expected(people.signatures, world.clicks)
        self.waited_for = {
            one.number
            for one in people.signatures
            if one.accepts and (one.asked == "moderate" or (one.asked == "sign" and one.exists))
        } - unheard
        self.stored = Counter(forwarded(one, world.ids) for one in world.stored)

    @property
    def lost(self) -> set[Mail]:
        """Mails that did not come and are not parked either."""
        return {mail for mail in self.model.mails - self.mails.keys() if not self.is_parked(mail)}

    def is_parked(self, mail: Mail) -> bool:
        return mail[2] in self.unknown.get(PLACES[MAILED.get(mail[0], "thank_you")], set())

    def missing(self) -> dict[str, Any]:
        """Return what has not come yet."""
        world = self.world
        found: dict[str, Any] = {
            "mails": self.lost,
            "clicks": self.waited_for - set(world.clicks),
            "sqs": self.model.sqs - self.stored.keys(),
        }
        for org, crm in world.crms.items():
            found[org] = self.model.crm[org] - told(crm, world.ids)
        return {name: several for name, several in found.items() if several}


async def all_there(world: World, people: People) -> None:
    """Wait until all that must come is there."""
    left: dict[str, Any] = {}
    try:
        with anyio.fail_after(PATIENCE):
            while True:
                await world.look()
                account = Account(world, people, await world.parked())
                left = account.missing()
                if not left and not people.busy:
                    return
                await anyio.sleep(5 if LARGE else 0.5)
    except TimeoutError:
        raise AssertionError({name: list(several)[:5] for name, several in left.items()}) from None


async def stopped(processes: dict[str, Process]) -> dict[str, int]:
    """Ask all to stop; return their exit codes."""
    codes = {}

    async def stop(name: str) -> None:
        codes[name] = await processes[name].running.stop()

    async with anyio.create_task_group() as stopping:
        for name in processes:
            stopping.start_soon(stop, name)
    return codes


async def left_over(world: World, amqp_url: str) -> dict[str, int]:
    """Return what waits in the queues and in the outbox, when nobody reads them."""
    connection = await connected(amqp_url)
    channel = await connection.channel()
    found = {}
    for queue in [*QUEUES, "system.retry"]:
        found[queue] = (await channel.queue_declare(queue, passive=True)).message_count or 0
    await connection.close()
    async with world.database.reading() as reading:
        found["outbox"] = await reading.scalar(select(func.count()).select_from(outbox)) or 0
    return {name: count for name, count in found.items() if count}


def check(account: Account, unknown: dict[str, int]) -> None:
    """Compare everything with the model."""
    world, model = account.world, account.model
    assert not account.missing()
    assert set(account.mails) - model.mails == set()
    twice = {mail: count for mail, count in account.mails.items() if count > 1}
    assert twice == {}
    identifiers = Counter(one.mail["Message-ID"] for one in world.postbox.received)
    assert identifiers.total() == len(identifiers)
    for org, crm in world.crms.items():
        assert told(crm, world.ids) == model.crm[org], org
    assert account.stored.keys() == model.sqs
    for queue, several in account.parked.items():
        reasons = Counter(re.split(r"[:(,]", reason)[0].strip() for reason, _ in several)
        assert set(reasons) <= {"outcome unknown", "there is no such address"}, reasons
        assert reasons["outcome unknown"] <= CONNECTIONS.get(queue, 0), queue
        assert reasons["there is no such address"] <= model.bounced[queue]
    assert unknown.keys() == CONNECTIONS.keys()  # each was killed in the middle of a mail


async def test_every_supporter_has_the_mails_of_the_model_and_everybody_else_knows_once(
    amqp_url: str, postgresql_url: str, aws: None, sqs: SqsServer, tmp_path: Path
) -> None:
    seed = int(os.environ.get("FLOW_TEST_SEED", random.randrange(10**6)))
    print(f"seed {seed}, {SIZE} signatures")  # noqa: T201  (shown when it fails)
    chance = random.Random(seed)
    signatures = invented(chance)
    Templates(tmp_path / "templates")
    begin = time.monotonic()
    async with opened_world(amqp_url, postgresql_url, sqs, tmp_path) as (world, tasks):
        [port] = free_ports(1)
        address = f"http://127.0.0.1:{port}"
        world.flow.environment |= settings(world, address, tmp_path / "templates", postgresql_url)
        await set_up(world.flow)
        people = People(world, signatures)
        processes = await started(world, port)
        tasks.start_soon(people.read_mail)
        ready = time.monotonic()
        async with anyio.create_task_group() as working:
            working.start_soon(kill_each, world, processes, chance)
            working.start_soon(submit, world, signatures, chance)
        await all_there(world, people)
        done = time.monotonic()
        codes = await stopped(processes)
        left = await left_over(world, amqp_url)
        await world.look()
        account = Account(world, people, await world.parked())
        unknown = {queue: len(several) for queue, several in account.unknown.items() if several}
        again = {org: sum(crm.effects.values()) - len(crm.records) for org, crm in world.crms.items()}
        print(  # noqa: T201
            f"ready after {ready - begin:.1f} s, all there after {done - ready:.1f} s; "
            f"{len(world.postbox.received)} mails, {len(account.model.mails)} in the model, "
            f"unknown and parked {unknown}, clicks {world.answered}, "
            f"SQS {len(account.stored)} and {account.stored.total() - len(account.stored)} again, "
            f"CRM {[len(crm.records) for crm in world.crms.values()]} and {again} again"
        )
        assert codes == dict.fromkeys(processes, 0)
        assert left == {}
        workers = [process.running for name, process in processes.items() if name != "serve"]
        assert all(worker.account["received"] for worker in workers)  # none was killed when all was done
        check(account, unknown)
