import pytest

from flow.checking.facts import QueueFacts, dangers
from flow.checking.managed import matches
from flow.errors import ConfigError
from flow.topology import (
    DEAD_QUEUE,
    DELIVER_EXCHANGE,
    FAIL_EXCHANGE,
    ORGANISATION_PARTS,
    PARK_EXCHANGE,
    QUEUE_TYPES,
    RETRY_EXCHANGE,
    RETRY_QUEUE,
    Binding,
    Queue,
    QueueType,
    Topology,
    check_organisation,
    check_work_queue,
    global_topology,
    has_retry_loop,
    made_with,
    organisation_topology,
    retry_exchange,
    system_topology,
    work_queue,
)


def queue(topology: Topology, name: str) -> Queue:
    return next(one for one in topology.queues if one.name == name)


def test_the_shared_exchanges_are_topics_and_the_park_is_a_fanout() -> None:
    kinds = {exchange.name: exchange.kind for exchange in global_topology().exchanges}

    assert kinds == {
        "confirm": "topic",
        "deliver": "topic",
        "system.fail": "topic",
        "system.retry": "topic",
        "system.park": "fanout",
    }


def test_what_the_retry_exchanges_cannot_route_goes_to_the_park() -> None:
    alternates = {one.name: one.arguments.get("alternate-exchange") for one in global_topology().exchanges}

    assert alternates == {
        "confirm": None,
        "deliver": None,
        FAIL_EXCHANGE: PARK_EXCHANGE,
        RETRY_EXCHANGE: PARK_EXCHANGE,
        PARK_EXCHANGE: None,
    }


def test_everything_rejected_waits_in_the_retry_queue_and_everything_parked_in_the_dead_queue() -> None:
    assert global_topology().bindings == (
        Binding(exchange=PARK_EXCHANGE, key="", queue=DEAD_QUEUE),
        Binding(exchange=FAIL_EXCHANGE, key="#", queue=RETRY_QUEUE),
    )


@pytest.mark.parametrize(("delay", "milliseconds"), [(30.0, 30_000), (0.25, 250), (1, 1000), (0.0001, 1)])
def test_the_retry_delay_is_the_time_to_live_of_the_retry_queue(delay: float, milliseconds: int) -> None:
    waiting = queue(global_topology(retry_delay=delay), RETRY_QUEUE)

    assert waiting.arguments["x-message-ttl"] == milliseconds
    assert waiting.arguments["x-dead-letter-exchange"] == RETRY_EXCHANGE
    assert "x-dead-letter-routing-key" not in waiting.arguments


def test_quorum_queues_dead_letter_at_least_once_on_both_hops() -> None:
    hops = [queue(global_topology(), RETRY_QUEUE), queue(work_queue("acme.crm"), "acme.crm")]

    for hop in hops:
        assert hop.arguments["x-queue-type"] == "quorum"
        assert hop.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert hop.arguments["x-overflow"] == "reject-publish"


def test_no_quorum_queue_drops_a_message_for_being_delivered_often() -> None:
    topology = global_topology() + work_queue("acme.crm")

    assert {one.name: one.arguments.get("x-delivery-limit") for one in topology.queues} == {
        DEAD_QUEUE: 1_000_000,
        RETRY_QUEUE: 1_000_000,
        "acme.crm": 1_000_000,
    }


WHOLE = {
    kind: global_topology(kind)
    + system_topology(kind)
    + organisation_topology("acme", ORGANISATION_PARTS, kind)
    + work_queue("my.queue", kind)
    for kind in QUEUE_TYPES
}
"""All that `flow setup` and `flow org add` can declare, but for names."""


@pytest.mark.parametrize("kind", QUEUE_TYPES)
def test_only_what_was_rejected_comes_into_the_retry_loop(kind: QueueType) -> None:
    """No time to live, no length limit, no expiry and no reachable delivery limit on any work queue; and the
    retry queue has no limit under which it would refuse or drop what is rejected."""
    for one in WHOLE[kind].queues:
        allowed = {"x-queue-type", "x-delivery-limit", "x-dead-letter-strategy", "x-overflow"}
        if one.name != DEAD_QUEUE:
            allowed |= {"x-dead-letter-exchange", "x-dead-letter-routing-key"}
        if one.name == RETRY_QUEUE:
            allowed = allowed - {"x-dead-letter-routing-key"} | {"x-message-ttl"}
        assert set(one.arguments) <= allowed, one.name
        assert one.arguments.get("x-delivery-limit") == (1_000_000 if kind == "quorum" else None)


@pytest.mark.parametrize("kind", QUEUE_TYPES)
@pytest.mark.parametrize("version", ["3.10.8", "4.2.0"])
def test_nothing_that_can_be_declared_is_a_danger_to_the_check(kind: QueueType, version: str) -> None:
    for one in WHOLE[kind].queues:
        if one.name != RETRY_QUEUE:
            facts = QueueFacts(name=one.name, kind=kind, arguments=one.arguments, policy={})
            assert [finding.state for finding in dangers(facts, version)] == ["ok"]


@pytest.mark.parametrize("kind", QUEUE_TYPES)
def test_a_rejected_message_finds_its_way_back_to_its_queue_and_to_no_other(kind: QueueType) -> None:
    """The loop is walked in the declarations themselves."""
    topology = WHOLE[kind]
    exchanges = {one.name for one in topology.exchanges}
    for one in topology.queues:
        if one.name in (DEAD_QUEUE, RETRY_QUEUE):
            continue
        first, key = one.arguments["x-dead-letter-exchange"], one.arguments["x-dead-letter-routing-key"]
        assert first in exchanges
        assert routed(topology, str(first), str(key)) == [RETRY_QUEUE]
        second = queue(topology, RETRY_QUEUE).arguments["x-dead-letter-exchange"]
        assert second in exchanges
        assert routed(topology, str(second), str(key)) == [one.name]


def routed(topology: Topology, exchange: str, key: str) -> list[str]:
    """Return where a topic *exchange* takes messages with the *key*."""
    return [
        one.queue
        for one in topology.bindings
        if one.exchange == exchange and matches(one.key.split("."), key.split("."))
    ]


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        ("confirm", "acme.system.supporter", ["system.email.confirm"]),
        ("confirm", "acme.custom.supporter", ["acme.confirm"]),
        ("confirm", "acme.custom.action", ["acme.moderate"]),
        ("deliver", "acme.custom.action", ["acme.crm"]),
        ("deliver", "acme.system.action", ["system.email.thankyou", "acme.crm", "system.sqs"]),
        ("deliver", "other.system.action", ["system.email.thankyou"]),
        ("deliver", "other.custom.action", []),
        ("confirm", "other.custom.action", []),
    ],
)
def test_each_key_leads_to_the_queues_of_its_row(exchange: str, key: str, queues: list[str]) -> None:
    assert routed(WHOLE["quorum"], exchange, key) == queues


def test_the_sqs_part_of_an_organisation_is_a_binding_on_the_shared_queue() -> None:
    topology = organisation_topology("acme", ["sqs"])

    assert [one.name for one in topology.queues] == ["system.sqs"]
    assert Binding(exchange="deliver", key="acme.system.*", queue="system.sqs") in topology.bindings


def test_a_topology_names_the_exchanges_that_must_be_there() -> None:
    assert organisation_topology("acme").surroundings == ("system.fail", "system.retry", "deliver")
    assert WHOLE["quorum"].surroundings == ()


def test_the_park_itself_has_no_way_out() -> None:
    assert not any(
        "dead-letter" in name or "ttl" in name for name in queue(global_topology(), DEAD_QUEUE).arguments
    )


def test_a_rejected_message_comes_back_under_the_name_of_its_queue() -> None:
    topology = work_queue("acme.crm")

    assert queue(topology, "acme.crm").arguments["x-dead-letter-exchange"] == FAIL_EXCHANGE
    assert queue(topology, "acme.crm").arguments["x-dead-letter-routing-key"] == "acme.crm"
    assert topology.bindings == (Binding(exchange=RETRY_EXCHANGE, key="acme.crm", queue="acme.crm"),)


def test_classic_queues_carry_only_what_they_understand() -> None:
    topology = global_topology("classic") + work_queue("acme.crm", "classic")

    assert dict(queue(topology, DEAD_QUEUE).arguments) == {"x-queue-type": "classic"}
    assert dict(queue(topology, "acme.crm").arguments) == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": FAIL_EXCHANGE,
        "x-dead-letter-routing-key": "acme.crm",
    }


def test_an_organisation_gets_its_crm_queue_for_all_its_actions() -> None:
    topology = organisation_topology("acme")

    assert [one.name for one in topology.queues] == ["acme.crm"]
    assert Binding(exchange=DELIVER_EXCHANGE, key="acme.*.*", queue="acme.crm") in topology.bindings
    assert Binding(exchange=RETRY_EXCHANGE, key="acme.crm", queue="acme.crm") in topology.bindings


def test_an_organisation_gets_the_queues_it_wants() -> None:
    topology = organisation_topology("acme", ("confirm", "moderate"), "classic")

    assert [one.name for one in topology.queues] == ["acme.confirm", "acme.moderate"]
    assert Binding(exchange="confirm", key="acme.custom.supporter", queue="acme.confirm") in topology.bindings
    assert Binding(exchange="confirm", key="acme.custom.action", queue="acme.moderate") in topology.bindings


def test_a_misspelt_organisation_queue_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"no queue 'cmr'; did you mean crm\?"):
        organisation_topology("acme", ("cmr",))


def test_topologies_add_up_without_repeating_themselves() -> None:
    once = organisation_topology("acme")

    assert once + once == once
    assert [one.name for one in (once + work_queue("acme.sms")).queues] == ["acme.crm", "acme.sms"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "must not be empty"),
        ("acme.org", "must not contain a dot"),
        ("*", r"must not contain \*, which binds other people's messages"),
        ("ac#me", "must not contain #, which binds other people's messages"),
        ("acme org", "must not contain white space"),
        ("acme\n", "must not contain white space"),
        ("acme\u00a0", "must not contain white space"),
        ("acme\x00", "unprintable"),
        ("acme\udcff", "unprintable"),
        ("amq.acme", "must not begin with amq."),
        ("system", "must not begin with system"),
        ("systemic", "must not begin with system"),
        ("a" * 239, "must not be longer than 238 bytes, got 239"),
        ("ä" * 120, "must not be longer than 238 bytes, got 240"),
    ],
)
def test_organisation_names_that_would_bind_other_peoples_messages_are_refused(
    name: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_organisation(name)
    with pytest.raises(ConfigError, match=sentence):
        organisation_topology(name)


@pytest.mark.parametrize("name", ["acme", "a", "Grüne", "acme-2", "amqp", "my_system", "a" * 238])
def test_harmless_organisation_names_are_taken(name: str) -> None:
    check_organisation(name)

    assert all(len(one.key.encode()) <= 255 for one in organisation_topology(name, ("confirm",)).bindings)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "must not be empty"),
        ("a.*", r"must not contain \*"),
        ("#", "must not contain #"),
        ("a b", "white space"),
        ("amq.gen-1", "must not begin with amq."),
        ("system.retry", "part of the retry loop"),
        ("system.dead", "part of the retry loop"),
        ("wrk.7.sqs", "belongs to the campaign server"),
        ("cus.7.deliver", "belongs to the campaign server"),
        ("org.7.fail", "belongs to the campaign server"),
        ("org.7.confirm.supporter", "belongs to the campaign server"),
        ("a" * 256, "must not be longer than 255 bytes, got 256"),
    ],
)
def test_queue_names_that_are_no_work_queue_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_work_queue(name)
    with pytest.raises(ConfigError, match=sentence):
        work_queue(name)


@pytest.mark.parametrize("kind", ["Quorum", "stream", ""])
def test_an_unknown_queue_type_is_refused(kind: QueueType) -> None:
    with pytest.raises(ConfigError, match="the queue type must be quorum or classic, got"):
        work_queue("acme.crm", kind)


@pytest.mark.parametrize("delay", [0, -1, float("inf"), True])
def test_a_retry_delay_that_is_no_time_is_refused(delay: float) -> None:
    with pytest.raises(ConfigError, match="retry_delay must be a number of seconds above 0, got"):
        global_topology(retry_delay=delay)


@pytest.mark.parametrize(
    ("name", "loops"),
    [
        ("wrk.7.sqs", True),
        ("cus.7.deliver", True),
        ("acme.crm", True),
        ("acme.confirm", True),
        ("acme.moderate", True),
        ("system.email.confirm", True),
        ("system.email.thankyou", True),
        ("system.sqs", True),
        ("acme.crm.old", False),
        ("my.own.queue", False),
        ("crm", False),
        (".crm", False),
        ("system.crm", False),
        ("system.dead", False),
        ("wrk", False),
        ("", False),
    ],
)
def test_a_retry_loop_is_assumed_only_where_somebody_made_one(name: str, loops: bool) -> None:
    assert has_retry_loop(name) is loops


@pytest.mark.parametrize(
    ("name", "exchange"),
    [
        ("acme.crm", "system.retry"),
        ("system.sqs", "system.retry"),
        ("wrk.7.sqs", "org.7.retry"),
        ("wrk.7.email.supporter", "org.7.retry"),
        ("cus.12.deliver", "org.12.retry"),
        ("cus.deliver", "system.retry"),
    ],
)
def test_each_generation_has_its_own_way_back_into_a_queue(name: str, exchange: str) -> None:
    assert retry_exchange(name) == exchange


@pytest.mark.parametrize(
    ("queue", "command"),
    [
        ("acme.crm", "flow org add acme --crm"),
        ("acme.moderate", "flow org add acme --moderate"),
        ("system.sqs", "flow setup"),
        ("system.email.confirm", "flow setup"),
        ("acme.webhook", "flow setup --queue acme.webhook"),
        ("a.b.crm", "flow setup --queue a.b.crm"),
    ],
)
def test_each_queue_has_the_command_that_makes_it(queue: str, command: str) -> None:
    assert made_with(queue) == command
