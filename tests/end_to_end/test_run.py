"""`flow run` with several targets, an env file, and while its code is being written."""

import signal

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from tests.end_to_end.conftest import Flow, push
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

OTHER = """
from flow import Pipeline
from flow.schema import ActionMessage

class {name}(Pipeline[ActionMessage]):
    queue = "{queue}"

    async def handle_message(self, message):
        {does}
"""


def write(
    flow: Flow, module: str, *, name: str = "Other", queue: str = "acme.crm", does: str = "pass"
) -> None:
    (flow.folder / f"{module}.py").write_text(OTHER.format(name=name, queue=queue, does=does))


async def test_several_targets_run_in_one_process_with_a_session_each(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl
) -> None:
    write(flow, "other", queue="acme.other")
    made = await flow("setup", "--queue", "acme.other")
    assert made.returncode == 0, made.stderr
    running = await flow.run("pipelines.crm", "other")
    await running.says("other consumes acme.other")
    await running.says("crm consumes acme.crm")
    names = await rabbitmq.connection_names(BrokerUrl.parse(amqp_url).vhost)
    await push(flow, range(1, 11))
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) == 10)

    code = await running.stop()

    assert code == 0, running.lines
    assert sorted(names) == ["flow crm", "flow other"]
    await running.says("crm ended: received 10")
    await running.says("other ended: received 0")


async def test_what_ends_one_pipeline_drains_the_others(flow: Flow) -> None:
    """Its exit code is that of the process; the others account for everything."""
    write(flow, "other", queue="acme.missing")

    running = await flow.run("pipelines.crm", "other")

    assert await running.end() == 78, running.lines
    sentences = [line for line in running.lines if line.startswith("flow: ")]
    assert len(sentences) == 1
    assert "acme.missing" in sentences[0]


CRASHING = """
from contextlib import asynccontextmanager
from flow import Pipeline
from flow.schema import ActionMessage

class Crashing(Pipeline[ActionMessage]):
    queue = "acme.crm"

    @asynccontextmanager
    async def lifespan(self):
        raise RuntimeError("no database")
        yield

    async def handle_message(self, message):
        pass
"""


async def test_a_pipeline_that_crashes_drains_the_others(flow: Flow) -> None:
    (flow.folder / "crashing.py").write_text(CRASHING)

    running = await flow.run("pipelines.crm", "crashing")

    assert await running.end() == 1, running.lines
    said = [line for line in running.lines if "crashing ended: RuntimeError in lifespan" in line]
    assert len(said) == 1
    assert said[0].endswith("; --tracebacks shows more")


async def test_an_env_file_stands_below_the_environment(flow: Flow, crm: CrmServer) -> None:
    """Settings, the broker and options come from it, unless a flag or a variable says otherwise."""
    wanted = {name: flow.environment.pop(name) for name in ("AMQP_URL", "CRM_TOKEN")}
    file = flow.folder / "crm.env"
    file.write_text(
        "\n".join(f"{name}='{value}'" for name, value in wanted.items())
        + "\nCRM_URL=http://127.0.0.1:1/\nFLOW_PREFETCH=150\nFLOW_LOG_FORMAT=json\nFLOW_CONCURRENCY=nine\n"
    )

    running = await flow.run("pipelines.crm", "--env-file", "crm.env", "--concurrency", "3")
    line = await running.says("crm consumes acme.crm, 150 messages at a time")
    await push(flow, range(1, 11), AMQP_URL=wanted["AMQP_URL"])
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) == 10)
    code = await running.stop()

    assert code == 0, running.lines
    assert line.startswith("{")
    assert wanted["CRM_TOKEN"] not in "".join(running.lines)


async def test_a_change_starts_it_again(flow: Flow, amqp_url: str) -> None:
    """Errors of the code are said, and the next change mends them; a change drains first."""
    write(flow, "other", does="print(1)")
    running = await flow.run("other", "--reload")
    await running.says("other consumes acme.crm")

    (flow.folder / "other.py").write_text("1 / 0\n")
    await running.says("other.py has changed: starting again")
    await running.says("other ended: received 0")
    await running.says("cannot be imported: ZeroDivisionError")
    await running.says("starts again at the next change")
    write(flow, "other", name="Mended")
    await running.says("mended consumes acme.crm")
    running.signal(signal.SIGINT)

    assert await running.end() == 0, running.lines


async def test_a_changed_env_file_is_read_again(flow: Flow) -> None:
    write(flow, "other")
    settings = flow.folder / ".env"
    settings.write_text("FLOW_PREFETCH=150\n")
    running = await flow.run("other", "--reload", "--workers", "2", "--env-file", ".env")
    await running.says("worker 2: other consumes acme.crm, 150 messages")

    settings.write_text("FLOW_PREFETCH=160\n")

    await running.says("worker 1: other consumes acme.crm, 160 messages")
    await running.says("worker 2: other consumes acme.crm, 160 messages")
    assert await running.stop() == 0, running.lines


async def test_waiting_does_not_end_for_a_missing_queue(flow: Flow) -> None:
    running = await flow.run("pipelines.crm", "--queue", "no.crm", "--wait")
    await running.says("The queue no.crm does not exist")
    await running.says("the next try is in 60.0 s")

    assert await running.stop() == 0, running.lines


async def test_strict_ends_where_a_warning_would_be_logged(flow: Flow) -> None:
    lenient = await flow.run("pipelines.crm", "--prefetch", "1")
    await lenient.says("can never fill a batch")
    await lenient.says("crm consumes acme.crm, 1 messages at a time")
    assert await lenient.stop() == 0

    strict = await flow.run("pipelines.crm", "--prefetch", "1", "--strict")
    assert await strict.end() == 78
    assert [line for line in strict.lines if "can never fill a batch" in line and line.startswith("flow: ")]
