import anyio
import pytest
from click.testing import CliRunner

from flow.broker.declaring import Declarer
from flow.broker.url import BrokerUrl
from flow.cli import main
from flow.errors import NotFound
from tests.cli.conftest import run_flow, start_flow
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio

TABLE = """\
KIND      NAME                         AS            STATE
exchange  system.park                  fanout        declared
exchange  confirm                      topic         declared
exchange  deliver                      topic         declared
exchange  system.fail                  topic         declared
exchange  system.retry                 topic         declared
queue     system.dead                  quorum        declared
queue     system.retry                 quorum, 30 s  declared
queue     acme.crm                     quorum        declared
queue     my.queue                     quorum        declared
binding   system.park -> system.dead   everything    declared
binding   system.fail -> system.retry  #             declared
binding   system.retry -> acme.crm     acme.crm      declared
binding   deliver -> acme.crm          acme.*.*      declared
binding   system.retry -> my.queue     my.queue      declared
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
    assert "queue     system.retry                 classic, 5 s  differs, left as it is" in ended.out
    assert "binding   system.fail -> system.retry  #             not made" in ended.out


@pytest.mark.broker
async def test_a_dry_run_prints_the_same_and_declares_nothing(amqp_url: str, url: BrokerUrl) -> None:
    ended = await run_flow("setup", "--org", "acme", "--queue", "my.queue", "--dry-run", url=amqp_url)

    assert ended.out == TABLE.replace("declared", "would be declared")
    async with Declarer(url) as declarer:
        with pytest.raises(NotFound):
            await declarer.look("system.dead")


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


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["setup", "--org", "a.b"], 78, "flow: the organisation name 'a.b' must not contain a dot"),
        (["setup", "--queue", "system.dead"], 78, "flow: the queue name 'system.dead' is taken"),
        (["setup", "--retry-delay", "0"], 78, "flow: retry_delay must be a number of seconds above 0"),
        (["setup", "--amqp-url", "http://x"], 78, "flow: The broker URL must begin with amqp:// or amqps://"),
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
