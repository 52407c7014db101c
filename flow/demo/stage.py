"""Everything that the story needs around flow: records, broker, CRM, mail server, SQS, and the links."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.demo.broker import plumbed
from flow.demo.crm_server import CrmServer
from flow.demo.mail_page import mail_page
from flow.demo.mail_sink import MailSink
from flow.demo.people import People
from flow.demo.sqs_server import QUEUE, SqsServer
from flow.demo.surroundings import folder, settings, surroundings
from flow.demo.turnstile import Turnstile
from flow.demo.workers import workers
from flow.devbroker.server import DevBroker
from flow.endpoint import Endpoint
from flow.links import Tokens
from flow.plumbing.outbox import Outbox
from flow.plumbing.sweeper import Sweeper
from flow.records.database import Database
from flow.runner import Runner
from flow.serving.admission import Policy
from flow.serving.app import application
from flow.serving.desk import RecordsDesk
from flow.serving.numbers import ServingNumbers
from flow.serving.tokens import ApiTokens

HOST = "127.0.0.1"
MANY = 1_000_000  # requests in a minute: all of these people have one address


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is there while the story is told."""

    database: Database
    broker: DevBroker
    url: BrokerUrl
    turnstile: Turnstile
    sweeper: Sweeper
    crm: CrmServer
    sink: MailSink
    sqs: SqsServer
    people: People
    mails: str
    """The address of the page of mails."""
    links: str
    """The address at which links are answered."""
    runners: dict[str, Runner]


@asynccontextmanager
async def staged(kept: Path | None, say: Callable[[str], None]) -> AsyncIterator[Stage]:
    """Set everything up; *say* is told what somebody has to look at. Records and mails stay in *kept*.

    Raises:
        FlowError: that could not be done.
    """
    secret = token_urlsafe(32)
    async with AsyncExitStack() as stack:
        place = stack.enter_context(folder(kept))
        file = f"sqlite:///{place.absolute() / 'records.db'}"
        stack.enter_context(surroundings(file, secret))
        database = await stack.enter_async_context(Database.opened(file))
        broker, url = await stack.enter_async_context(plumbed())
        publisher = Publisher(url, name="flow demo")
        stack.push_async_callback(publisher.close)
        turnstile = Turnstile(publisher)
        sweeper = Sweeper(database, Outbox(database, turnstile), say=say)
        crm = await stack.enter_async_context(CrmServer())
        policy = Policy(tokens=ApiTokens.parse(None), moderation=Tokens(secret), requests=MANY)
        app = application(RecordsDesk(database, sweeper.wake), policy, ServingNumbers(sweeper))
        serving = await stack.enter_async_context(endpoint(app))
        people = await stack.enter_async_context(People(say))
        mails = place / "mails"
        mails.mkdir(exist_ok=True)
        sink = await stack.enter_async_context(MailSink(mails, people.read))
        page = await stack.enter_async_context(endpoint(mail_page(sink)))
        sqs = SqsServer()
        forwarded = await stack.enter_async_context(endpoint(sqs.application()))
        given = settings(
            crm=crm.url,
            token=crm.token,
            mail=sink.port,
            serve=serving.address,
            sqs=forwarded.address,
            queue=QUEUE,
        )
        os.environ |= given  # what a pipeline reads beside its own settings
        yield Stage(
            database=database,
            broker=broker,
            url=url,
            turnstile=turnstile,
            sweeper=sweeper,
            crm=crm,
            sink=sink,
            sqs=sqs,
            people=people,
            mails=page.address,
            links=serving.address,
            runners=workers(url, database, given),
        )


def endpoint(app: object) -> Endpoint:
    """Return an endpoint for *app* on a free port of this machine."""
    return Endpoint(app, HOST, 0, options="--", extra="serve")
