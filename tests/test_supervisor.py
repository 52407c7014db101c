"""The supervisor over processes that are no pipelines: what it starts, how often, and how it ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from flow.changes import changes
from flow.errors import ConfigError
from flow.histogram import Histogram
from flow.metrics import PipelineMetrics
from flow.report import Report, figures_of
from flow.supervisor import Plan, Supervisor, rank
from tests.broker.queues import until

pytestmark = pytest.mark.anyio

STARTS = "import os, sys; n = os.environ['FLOW_INTERNAL_WORKER'][0]; open('starts', 'a').write(n);"


@pytest.fixture(autouse=True)
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The numbers of the workers that were started, in order."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "starts"
    return lambda: file.read_text() if file.exists() else ""


def supervisor(code: str, workers: int = 1, shutdown_timeout: float = 25.0) -> Supervisor:
    return Supervisor(
        Plan(
            command=[sys.executable, "-c", STARTS + code],
            environment=dict(os.environ),
            workers=workers,
            shutdown_timeout=shutdown_timeout,
            ops_port=None,
        )
    )


@pytest.mark.parametrize("code", [2, 78])
async def test_a_wrong_set_up_at_the_start_is_the_end(code: int, starts: Callable[[], str]) -> None:
    """No worker but the first is started, and that once."""
    with anyio.fail_after(30):
        ended = await supervisor(f"sys.exit({code})", workers=3).run()

    assert (ended, starts()) == (code, "1")


async def test_a_crash_is_started_again_until_stopped(starts: Callable[[], str]) -> None:
    made = supervisor("sys.exit(1)")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            await until(lambda: starts() == "11")
            made.stop()


@pytest.mark.parametrize(("healthy", "soon"), [(0.0, True), (3600.0, False)])
async def test_a_worker_that_was_healthy_is_started_again_soon_and_others_wait_longer(
    healthy: float, soon: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow.supervisor.HEALTHY", healthy)
    made = supervisor("sys.exit(1)")

    def delays() -> list[float]:
        return [float(one) for one in re.findall(r"starts again in (\S+) s", caplog.text)]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        await until(lambda: len(delays()) == 3)
        made.stop()

    assert (max(delays()) <= 1.0) is soon
    assert soon or sorted(delays()) == delays()


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("os.kill(os.getpid(), 9)", "worker 1 was killed by SIGKILL and starts again in "),
        ("os.kill(os.getpid(), 40)", "worker 1 was killed by signal 40 and starts again in "),
        ("sys.exit(3)", "worker 1 ended (exit code 3) and starts again in "),
    ],
)
async def test_how_a_worker_ended_is_told(
    code: str, ending: str, starts: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    made = supervisor(code)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            await until(lambda: starts() == "11")
            made.stop()

    assert ending in caplog.text


def reporting() -> bytes:
    """Return a report of a worker that consumes."""
    metrics = PipelineMetrics("crm")
    metrics.account("acme.crm").received = 7
    figures = figures_of([metrics], Histogram((1.0,)))
    return msgspec.json.encode(Report(live=None, ready=None, pipelines={"crm": True}, figures=figures))


async def test_a_worker_that_falls_silent_is_told_and_one_that_is_missing_is_not_ready(
    starts: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reports once, the second ends at once."""
    (tmp_path / "report").write_bytes(reporting() + b"\n")
    channel = "int(os.environ['FLOW_INTERNAL_WORKER'].split('/')[-1])"
    made = supervisor(
        f"n == '2' and sys.exit(1); os.write({channel}, open('report', 'rb').read());"
        "import time; time.sleep(600)",
        workers=2,
    )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        await until(lambda: made.ready() == "worker 2 does not run" and starts().startswith("12"))
        alive, state = made.live(), made.state()["crm"]
        monkeypatch.setattr("flow.supervisor.LATE", 0.0)
        await until(lambda: made.live() is not None)
        silent = made.live()
        made.stop()

    assert alive is None
    assert (state["ready"], state["account"]["received"]) == (False, 7)
    assert silent is not None
    assert silent.startswith("worker 1 has not reported for ")


async def test_stopping_ends_what_has_not_begun(starts: Callable[[], str]) -> None:
    """A process that SIGTERM ends before it listens to it had received nothing."""
    made = supervisor("import time; time.sleep(600)")
    codes: list[int] = []

    async def run() -> None:
        codes.append(await made.run())

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: starts() == "1")
            assert made.ready() == "worker 1 is starting"
            made.stop()

    assert codes == [0]


async def test_a_signal_stops_it(starts: Callable[[], str]) -> None:
    made = supervisor("import time; time.sleep(600)")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            await until(lambda: starts() == "1")
            os.kill(os.getpid(), signal.SIGTERM)


LEAVING = """
import signal, threading, time
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
open("begun", "w").close()
asked.wait()
time.sleep(6)  # its connections are closed, and its lifespan is left
"""


async def test_a_worker_has_time_to_close_and_leave_after_its_drain(starts: Callable[[], str]) -> None:
    made = supervisor(LEAVING, shutdown_timeout=0.1)
    codes: list[int] = []

    async def run() -> None:
        codes.append(await made.run())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(Path("begun").exists)
            made.stop()

    assert codes == [0]


def test_exit_codes_have_an_order() -> None:
    assert sorted([78, 1, 0, 2, 3], key=rank) == [0, 3, 1, 2, 78]
    assert rank(42) == rank(1)


def test_it_loads_neither_the_broker_library_nor_pipelines() -> None:
    """It stays small, and nothing of the user's can make it fail."""
    code = (
        "import flow.supervisor, sys; print([one for one in ('aiormq', 'pipelines') if one in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_reloading_names_the_library_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    with pytest.raises(ConfigError, match=r"^--reload needs watchfiles, .* 'proca-flow\[reload\]'$"):
        changes(tmp_path, [])
