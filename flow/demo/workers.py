"""The pipelines of the story, as `flow run` would run them, with shorter waits."""

from collections.abc import Mapping
from typing import Any

from flow.batching import Batching
from flow.broker.url import BrokerUrl
from flow.demo.broker import RETRY_DELAY
from flow.demo.organisations import PARTIES
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.records.database import Database
from flow.runner import Runner, RunOptions
from flow.target import load

DRAIN = 10.0  # seconds
MAILS = 200  # in a second, for each sender


def workers(url: BrokerUrl, database: Database, settings: Mapping[str, str]) -> dict[str, Runner]:
    """Return a runner for each pipeline by its name, with ledger and claims in *database*."""
    made = [
        *(crm(party.name, party.queue, settings) for party in PARTIES),
        mailing("confirm", settings),
        mailing("thank_you", settings),
        kind("sqs").configured(settings, retry_delay=RETRY_DELAY, batching=Batching(size=10, timeout=0.3)),
        mailing("moderate", settings, queue="sady.moderate"),
    ]
    options = RunOptions(shutdown_timeout=DRAIN, database=database)
    return {pipeline.name: Runner(pipeline, url, options) for pipeline in made}


def kind(name: str) -> type[Pipeline[Any, Any]]:
    """Return the pipeline that is brought along under this *name*."""
    (found,) = load(f"pipelines.{name}")
    return found


def crm(name: str, queue: str, settings: Mapping[str, str]) -> Pipeline[Any, Any]:
    """Return the CRM pipeline of an organisation."""
    return kind("crm").configured(
        settings,
        name=f"crm-{name}",
        queue=queue,
        retry_delay=RETRY_DELAY,
        batching=Batching(size=100, timeout=0.5),
    )


def mailing(name: str, settings: Mapping[str, str], **options: object) -> Pipeline[Any, Any]:
    """Return a pipeline that mails."""
    faster = RateLimit(messages=MAILS, per=1.0)
    batching = Batching(size=50, timeout=0.3)
    return kind(name).configured(
        settings, retry_delay=RETRY_DELAY, batching=batching, rate_limit=faster, **options
    )
