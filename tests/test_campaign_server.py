import pytest

from flow.campaign_server import server_queue
from flow.errors import ConfigError
from flow.topology import has_retry_loop, retry_exchange, work_queue


@pytest.mark.parametrize(
    ("name", "organisation", "source"),
    [
        ("cus.7.deliver", "7", "org.7.deliver"),
        ("cus.12.confirm.supporter", "12", "org.12.confirm.supporter"),
        ("cus.12.confirm.action", "12", "org.12.confirm.action"),
        ("wrk.7.email.supporter", "7", None),
        ("wrk.7.sqs", "7", None),
        ("wrk.7.webhook", "7", None),
    ],
)
def test_the_queues_of_a_campaign_server_are_known(name: str, organisation: str, source: str | None) -> None:
    found = server_queue(name)

    assert found is not None
    assert (found.organisation, found.source) == (organisation, source)
    assert found.purpose
    assert found.loop == (
        ("exchange", f"org.{organisation}.fail"),
        ("queue", f"org.{organisation}.fail"),
        ("exchange", f"org.{organisation}.retry"),
    )
    assert has_retry_loop(name)
    assert retry_exchange(name) == f"org.{organisation}.retry"


@pytest.mark.parametrize(
    "name", ["cus.7.deliver", "wrk.7.sqs", "wrk.7.other", "org.7.fail", "org.7.deliver", "org.12.event"]
)
def test_nothing_of_a_campaign_server_is_ever_declared(name: str) -> None:
    with pytest.raises(ConfigError, match="belongs to the campaign server, which declares it"):
        work_queue(name)


def test_a_queue_of_an_unknown_name_is_still_one_of_the_server() -> None:
    found = server_queue("cus.7.other")

    assert found is not None
    assert (found.organisation, found.purpose, found.source) == ("7", None, None)


@pytest.mark.parametrize("name", ["acme.crm", "system.sqs", "cus", "cus.7", "org.crm", "wrk.crm"])
def test_other_queues_are_none_of_a_server(name: str) -> None:
    assert server_queue(name) is None
