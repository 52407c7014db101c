import logging
import sys
import threading
from collections.abc import Iterator

import anyio
import pytest
from click.testing import CliRunner

from flow.broker.declaring import Declarer
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.cli import main
from flow.errors import NotFound, PublishFailed
from tests.cli.conftest import run_flow, start_flow, until_ready
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio

TABLE = """\
KIND      NAME                                   AS                     STATE
exchange  system.park                            fanout                 declared
exchange  confirm                                topic                  declared
exchange  deliver                                topic                  declared
exchange  system.fail                            topic                  declared
exchange  system.retry                           topic                  declared
queue     system.dead                            quorum                 declared
queue     system.retry                           quorum, 30 s           declared
queue     system.email.confirm                   quorum                 declared
queue     system.email.thankyou                  quorum                 declared
queue     system.sqs                             quorum                 declared
queue     acme.crm                               quorum                 declared
queue     my.queue                               quorum                 declared
binding   system.park -> system.dead             everything             declared
binding   system.fail -> system.retry            #                      declared
binding   system.retry -> system.email.confirm   system.email.confirm   declared
binding   confirm -> system.email.confirm        *.system.supporter     declared
binding   system.retry -> system.email.thankyou  system.email.thankyou  declared
binding   deliver -> system.email.thankyou       *.system.*             declared
binding   system.retry -> system.sqs             system.sqs             declared
binding   system.retry -> acme.crm               acme.crm               declared
binding   deliver -> acme.crm                    acme.*.*               declared
binding   system.retry -> my.queue               my.queue               declared
"""


@pytest.mark.broker
async def test_setup_prints_what_it_declared_and_may_be_repeated(amqp_url: str) -> None:
    for _ in range(2):
        ended = await run_flow("setup", "--org", "acme", "--queue", "my.queue", url=amqp_url)

        assert (ended.code, ended.err, ended.out) == (0, "", TABLE)


@pytest.mark.broker
async def test_what_exists_with_other_arguments_is_reported_and_left_alone(amqp_url: str) -> None:
    first = await run_flow("setup", "--org", "acme", "--queue-type", "classic", url=amqp_url)

    ended = await run_flow(
        "setup", "--org", "acme", "--queue-type", "classic", "--retry-delay", "5", url=amqp_url
    )
    again = await run_flow("setup", "--org", "acme", "--queue-type", "classic", url=amqp_url)

    assert (first.code, again.code) == (0, 0)
    assert ended.code == 78
    assert ended.err.startswith(
        "flow: The queue system.retry exists with x-message-ttl = 30000 where 5000 is wanted"
    )
    assert len(ended.err.splitlines()) == 1
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "queue system.retry classic, 5 s differs, left as it is" in lines
    assert "binding system.fail -> system.retry # not made" in lines


@pytest.mark.broker
async def test_a_dry_run_prints_the_same_and_declares_nothing(amqp_url: str, url: BrokerUrl) -> None:
    ended = await run_flow("setup", "--org", "acme", "--queue", "my.queue", "--dry-run", url=amqp_url)

    assert ended.out == TABLE.replace("declared", "would be declared")
    async with Declarer(url) as declarer:
        with pytest.raises(NotFound):
            await declarer.look("system.dead")


@pytest.mark.broker
async def test_the_queues_of_flows_own_pipelines_can_be_left_out(amqp_url: str, url: BrokerUrl) -> None:
    ended = await run_flow("setup", "--no-system-queues", url=amqp_url)

    assert ended.code == 0
    async with Declarer(url) as declarer:
        with pytest.raises(NotFound):
            await declarer.look("system.email.thankyou")


@pytest.mark.broker
async def test_a_check_without_the_management_api_says_what_it_cannot_see_and_changes_nothing(
    amqp_url: str, url: BrokerUrl, rabbitmq: RabbitMQControl
) -> None:
    empty = await run_flow("setup", "--org", "acme", "--check", url=amqp_url)
    nothing = await rabbitmq.queue_lengths(url.vhost)
    await run_flow("setup", "--org", "acme", url=amqp_url)
    async with Declarer(url) as declarer:
        await declarer.delete_queue("system.sqs")
    whole = await run_flow("setup", "--org", "acme", "--no-system-queues", "--check", url=amqp_url)
    drifted = await run_flow("setup", "--org", "acme", "--check", url=amqp_url)

    assert (empty.code, whole.code, drifted.code) == (78, 0, 78)
    assert nothing == {}
    assert empty.out.count("is missing: run `flow setup`") == 5 + 6
    wrong = [line for line in drifted.out.splitlines() if line.startswith("wrong")]
    assert wrong == ["wrong        the queue system.sqs is missing: run `flow setup`"]
    needs = ": needs the management API (FLOW_MANAGEMENT_URL)"
    assert [line for line in whole.out.splitlines() if not line.startswith("ok")] == [
        f"not checked  {what}{needs}"
        for what in (
            "type and arguments of the exchange system.park",
            "type and arguments of the exchange confirm",
            "type and arguments of the exchange deliver",
            "type, alternate exchange and arguments of the exchange system.fail",
            "type, alternate exchange and arguments of the exchange system.retry",
            "type, arguments and policies of the queue system.dead",
            "type, arguments and policies of the queue system.retry",
            "type, arguments and policies of the queue acme.crm",
            "whether there is the binding system.park -> system.dead",
            "whether there is the binding system.fail -> system.retry with the key #",
            "whether there is the binding system.retry -> acme.crm with the key acme.crm",
            "whether there is the binding deliver -> acme.crm with the key acme.*.*",
            "whether other bindings take messages where they do not belong",
        )
    ]


@pytest.mark.broker
async def test_a_wrong_password_is_one_sentence_that_does_not_hold_it(
    amqp_url: str, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    wrong = rabbitmq.url(vhost, password="s3cret")

    ended = await run_flow("setup", url=wrong)

    assert ended.code == 78
    assert "refused the login of user guest" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "s3cret" not in ended.err + ended.out


@pytest.mark.broker
async def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(amqp_url: str) -> None:
    process = await start_flow("setup", url=amqp_url)
    assert process.stdout is not None
    assert process.stderr is not None

    await process.stdout.aclose()
    with anyio.fail_after(60):
        told = b"".join([chunk async for chunk in process.stderr])
        await process.wait()
    await process.aclose()

    assert b"Traceback" not in told


@pytest.mark.broker
async def test_the_flag_wins_over_the_environment_and_a_file_holds_the_url_as_well(
    amqp_url: str, tmp_path: anyio.Path
) -> None:
    secret = anyio.Path(tmp_path) / "url"
    await secret.write_text(amqp_url + "\n")

    by_flag = await run_flow("setup", "--amqp-url", amqp_url, url="amqp://127.0.0.1:1")
    by_file = await run_flow("setup", FLOW_AMQP_URL_FILE=str(secret))
    by_own_name = await run_flow("setup", url="amqp://127.0.0.1:1", FLOW_AMQP_URL=amqp_url)

    assert [by_flag.code, by_file.code, by_own_name.code] == [0, 0, 0]


@pytest.mark.broker
async def test_options_can_be_given_as_environment_variables(amqp_url: str) -> None:
    ended = await run_flow(
        "setup",
        "--dry-run",
        url=amqp_url,
        FLOW_SETUP_ORG="acme",
        FLOW_SETUP_QUEUE="my.queue",
        FLOW_RETRY_DELAY="5",
    )

    for text in ("acme.crm", "my.queue", "quorum, 5 s"):
        assert text in ended.out


async def test_nothing_listening_is_one_sentence_and_exit_code_1() -> None:
    ended = await run_flow("setup", url="amqp://127.0.0.1:1")

    assert ended.code == 1
    assert ended.err == (
        "flow: Nothing listens at 127.0.0.1:1: start the broker, or correct host and port of the URL\n"
    )


@pytest.fixture
def logged_as_before() -> Iterator[None]:
    """A command sets up the log of its process, which here is ours."""
    root, flow = logging.getLogger(), logging.getLogger("flow")
    kept = root.handlers[:], root.level, flow.level, logging.raiseExceptions
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:], logging.raiseExceptions = kept[0], kept[3]
    root.setLevel(kept[1])
    flow.setLevel(kept[2])
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


@pytest.mark.usefixtures("logged_as_before")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["setup", "--org", "a.b"], 78, "flow: the organisation name 'a.b' must not contain a dot"),
        (["setup", "--queue", "system.dead"], 78, "flow: the queue name 'system.dead' is taken"),
        (["setup", "--retry-delay", "0"], 78, "flow: retry_delay must be a number of seconds above 0"),
        (["setup", "--amqp-url", "http://x"], 78, "flow: The broker URL must begin with amqp:// or amqps://"),
        (["setup", "--check", "--dry-run"], 2, "give one of them"),
        (["setup", "--queue", "org.7.fail"], 78, "flow: the queue name 'org.7.fail' belongs to the campaign"),
        (["org", "add", "acme"], 2, "say which: --crm, --confirm, --moderate, --sqs"),
        (["org", "add", "a.b", "--crm"], 78, "flow: the organisation name 'a.b' must not contain a dot"),
        (["org", "drop", "#", "--crm"], 78, "flow: the organisation name '#' must not contain #"),
        (["org", "off", "systemic", "--sqs"], 78, "must not begin with system, which is reserved"),
        (["org", "list", "a b"], 78, "flow: the organisation name 'a b' must not contain white space"),
        (["org", "list"], 78, "flow: AMQP shows no list of queues: name the organisations, or set"),
        (["setup", "--queue-type", "stream"], 2, "Error: Invalid value for '--queue-type'"),
        (["setup", "--quorum"], 2, "Error: No such option '--quorum'"),
        (["set-up"], 2, "Error: No such command 'set-up'"),
    ],
)
def test_wrong_options_are_refused_before_the_broker_is_asked(
    arguments: list[str], code: int, sentence: str
) -> None:
    ended = CliRunner().invoke(main, arguments, env={"AMQP_URL": "amqp://127.0.0.1:1"})

    assert ended.exit_code == code
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_no_broker_named_is_a_wrong_set_up() -> None:
    ended = await run_flow("setup")

    assert ended.code == 78
    assert ended.err.startswith("flow: No broker is named: set AMQP_URL or PROCA_URL to amqps://")


def test_the_list_of_commands_needs_no_broker_and_no_command() -> None:
    ended = CliRunner().invoke(main, ["--help"])

    assert ended.exit_code == 0
    for command in ("run", "demo", "setup", "push", "dead"):
        assert f"\n  {command} " in ended.stdout


@pytest.mark.broker
async def test_a_queue_of_ones_own_gets_what_it_is_bound_for(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    arguments = ("--queue", "acme.webhook", "--no-system-queues", "--bind", "deliver:acme.*.*")
    planned = await run_flow("setup", *arguments, "--dry-run", url=amqp_url)
    ended = await run_flow("setup", *arguments, "--bind", "confirm:acme.custom.*", url=amqp_url)
    await publisher.publish("deliver", "acme.system.action", b"{}")
    await publisher.publish("confirm", "acme.custom.action", b"{}")

    last = [" ".join(line.split()) for line in ended.out.splitlines()][-3:]
    assert last == [
        "binding system.retry -> acme.webhook acme.webhook declared",
        "binding deliver -> acme.webhook acme.*.* declared",
        "binding confirm -> acme.webhook acme.custom.* declared",
    ]
    assert planned.out.splitlines()[-1].split() == [*last[1].split()[:-1], "would", "be", "declared"]
    await until_ready(url, "acme.webhook", lambda count: count == 2)
    with pytest.raises(PublishFailed):
        await publisher.publish("deliver", "other.system.action", b"{}")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--bind", "deliver:#"), 2, "--bind goes with one --queue: set up one queue at a time"),
        (
            ("--queue", "a.b", "--queue", "a.c", "--bind", "deliver:#"),
            2,
            "--bind goes with one --queue: set up one queue at a time",
        ),
        (
            ("--queue", "a.b", "--bind", "acme.#"),
            78,
            "the binding 'acme.#' must be an exchange, a colon and a key, like deliver:acme.*.*",
        ),
        (
            ("--queue", "a.b", "--bind", "system.fail:#"),
            78,
            "would take messages of others: system.fail is a part of the retry loop",
        ),
    ],
)
async def test_a_binding_that_cannot_be_made_is_refused(
    arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ended = await run_flow("setup", *arguments, "--dry-run", url="amqp://127.0.0.1:1")

    assert (ended.code, ended.out) == (code, "")
    assert sentence in ended.err
