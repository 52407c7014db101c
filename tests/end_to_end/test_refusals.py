"""What is wrong with the set-up is said in one sentence, with the right exit code and no traceback."""

from pathlib import Path

import pytest

from tests.end_to_end.conftest import Flow
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = pytest.mark.anyio

PIPELINE = """
from flow import Pipeline, Batching
from flow.schema import IdsMessage

class Mine(Pipeline[IdsMessage]):
    queue = "acme.crm"
    {option}

    async def handle_message(self, message):
        return message.body

class NoPipeline:
    pass
"""


async def refused(flow: Flow, *arguments: str, code: int, says: str, **environment: str) -> str:
    """Run `flow` and check that it refuses with *code* and one sentence that *says* what."""
    ended = await flow(*arguments, standard_input=b"{}", **environment)
    said = ended.stderr.decode()
    assert ended.returncode == code, said
    assert says in said
    assert "Traceback" not in said
    sentences = [line for line in said.splitlines() if line.startswith("flow: ") or "Error:" in line]
    assert len(sentences) == 1, said
    return said


async def test_a_wrong_password(flow: Flow, rabbitmq: RabbitMQControl) -> None:
    """R25, R42, F45: named by the user; the password is not shown."""
    url = rabbitmq.url("/", user="guest", password="canary-secret")
    said = await refused(flow, "run", "pipelines.crm", code=78, says="guest", AMQP_URL=url)
    assert "canary-secret" not in said


async def test_a_missing_vhost(flow: Flow, rabbitmq: RabbitMQControl) -> None:
    """F45."""
    await refused(flow, "run", "pipelines.crm", code=78, says="nowhere", AMQP_URL=rabbitmq.url("nowhere"))


async def test_a_missing_queue(flow: Flow) -> None:
    """F45."""
    await refused(flow, "run", "pipelines.crm", "--queue", "no.crm", code=78, says="no.crm")


async def test_a_missing_queue_of_several_workers(flow: Flow) -> None:
    """One worker goes ahead and says it; the others never start, and nothing is started again."""
    arguments = ("pipelines.crm", "--queue", "no.crm", "--workers", "3")
    said = await refused(flow, "run", *arguments, code=78, says="no.crm")
    assert "starts again" not in said


@pytest.mark.parametrize("target", ["mine", "nothing_here", "broken"])
async def test_a_wrong_target_of_several_workers(flow: Flow, target: str) -> None:
    (flow.folder / "mine.py").write_text(PIPELINE.format(option="concurency = 3"))
    (flow.folder / "broken.py").write_text("1 / 0\n")
    code = 78 if target == "mine" else 2

    await refused(flow, "run", target, "--workers", "2", code=code, says=target)


@pytest.mark.parametrize("workers", ["0", "many"])
async def test_a_wrong_number_of_workers(flow: Flow, workers: str) -> None:
    await refused(flow, "run", "pipelines.crm", "--workers", workers, code=2, says="--workers")


async def test_one_queue_for_several_pipelines(flow: Flow) -> None:
    (flow.folder / "mine.py").write_text(PIPELINE.format(option=""))
    says = "--queue goes with one pipeline, but pipelines.crm mine has 2"

    await refused(flow, "run", "pipelines.crm", "mine", "--queue", "acme.crm", code=78, says=says)


async def test_a_refused_permission(flow: Flow, rabbitmq: RabbitMQControl, vhost: str) -> None:
    """F45."""
    await rabbitmq.add_user(f"reader-{vhost}", "secret")
    await rabbitmq.permit(f"reader-{vhost}", vhost, "^$", "^$", "^other$")
    url = rabbitmq.url(vhost, user=f"reader-{vhost}", password="secret")
    try:
        await refused(flow, "run", "pipelines.crm", code=78, says="acme.crm", AMQP_URL=url)
    finally:
        await rabbitmq.delete_user(f"reader-{vhost}")


async def test_a_certificate_that_does_not_verify(flow: Flow, node: RabbitMQNode) -> None:
    """F45."""
    await refused(flow, "run", "pipelines.crm", code=78, says="certificate", AMQP_URL=node.tls_url())


async def test_nothing_listening(flow: Flow) -> None:
    """One-shot commands end; `flow run` goes on trying, see test_stops."""
    url = "amqp://guest:guest@127.0.0.1:1/"
    await refused(flow, "push", "deliver", "x", "-", code=1, says="127.0.0.1:1", AMQP_URL=url)


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("nothing_here", 2, "nothing_here"),
        ("pipelines.cmr", 2, "did you mean pipelines.crm"),
        ("mine:Nine", 2, "did you mean Mine"),
        ("mine:NoPipeline", 2, "NoPipeline"),
        ("broken", 2, "broken"),
        ("../mine", 2, "../mine"),
    ],
)
async def test_a_wrong_target(flow: Flow, target: str, code: int, says: str) -> None:
    (flow.folder / "mine.py").write_text(PIPELINE.format(option=""))
    (flow.folder / "broken.py").write_text("1 / 0\n")

    await refused(flow, "run", target, code=code, says=says)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("concurency = 3", "Mine.concurency"),
        ("concurrency = '3'", "Mine.concurrency must be a whole number of at least 1, got '3'"),
        ("batching = Batching(sise=3)", "Batching has no option sise; did you mean size?"),
        ("batching = Batching(size=0)", "Batching.size must be a whole number of at least 1, got 0"),
        ("batching = Batching(size=3)", "handle_batch"),
    ],
)
async def test_a_wrong_option_of_the_class(flow: Flow, option: str, says: str) -> None:
    """A01, A02: refused before anything is connected to."""
    (flow.folder / "mine.py").write_text(PIPELINE.format(option=option))

    await refused(flow, "run", "mine", code=78, says=says, AMQP_URL="amqp://guest:guest@127.0.0.1:1/")


async def test_a_misspelt_flag(flow: Flow) -> None:
    await refused(flow, "run", "pipelines.crm", "--concurency", "3", code=2, says="--concurrency")


async def test_an_unset_secret(flow: Flow) -> None:
    del flow.environment["CRM_TOKEN"]

    await refused(flow, "run", "pipelines.crm", code=78, says="CRM_TOKEN")


async def test_a_taken_ops_port(flow: Flow, rabbitmq: RabbitMQControl) -> None:
    """F47."""
    await refused(flow, "run", "pipelines.crm", "--ops-port", str(rabbitmq.port), code=78, says="--ops-port")


async def test_a_secret_file_that_is_missing(flow: Flow, tmp_path: Path) -> None:
    del flow.environment["CRM_TOKEN"]

    says = "CRM_TOKEN_FILE names a file that cannot be read"
    missing = str(tmp_path / "no-such-token")
    await refused(flow, "run", "pipelines.crm", code=78, says=says, CRM_TOKEN_FILE=missing)
