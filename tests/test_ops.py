"""The ops endpoints over a real port: what they answer, whom they disturb, how they end."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import SocketAttribute

from flow.errors import ConfigError
from flow.histogram import Histogram
from flow.metrics import PipelineMetrics, exposition
from flow.ops import LATE, Ops

pytestmark = pytest.mark.anyio

HANG = 30.0  # seconds: what has not ended by then does not end


class Run:
    """The health of a run, as a test wants it."""

    def __init__(self) -> None:
        self.dead: str | None = None
        self.waiting: str | None = None
        self.metrics: tuple[PipelineMetrics, ...] = (PipelineMetrics("crm"),)

    def live(self) -> str | None:
        return self.dead

    def ready(self) -> str | None:
        return self.waiting

    def state(self) -> Mapping[str, Any]:
        return {"crm": {"connected": self.waiting is None, "circuit": {"default": "closed"}}}

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        return exposition(self.metrics, accept, loop_lag)


def serving(run: Run | None = None, *metrics: PipelineMetrics, port: int = 0) -> Ops:
    run = run or Run()
    run.metrics = metrics or run.metrics
    return Ops("127.0.0.1", port, run)


async def get(ops: Ops, path: str, **options: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.get(ops.address + path, **options)


async def test_metrics_are_served_as_they_stand_at_the_moment() -> None:
    metrics = PipelineMetrics("crm")

    async with serving(None, metrics) as ops:
        before = await get(ops, "/metrics")
        metrics.account("wrk.1.crm").received = 3
        after = await get(ops, "/metrics")

    assert before.status_code == after.status_code == 200
    assert before.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "wrk.1.crm" not in before.text
    assert 'flow_received_total{pipeline="crm",queue="wrk.1.crm"} 3.0' in after.text
    assert "flow_loop_lag_seconds_count" in after.text


async def test_metrics_are_served_as_openmetrics_to_who_asks() -> None:
    async with serving() as ops:
        answer = await get(ops, "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_an_absent_broker_is_a_matter_of_readiness_only() -> None:
    run = Run()

    async with serving(run) as ops:
        together = [(await get(ops, path)).status_code for path in ("/livez", "/readyz", "/healthz")]
        run.waiting = "crm is not connected"
        apart = [await get(ops, path) for path in ("/livez", "/readyz", "/healthz")]

    assert together == [200, 200, 200]
    assert [answer.status_code for answer in apart] == [200, 503, 200]
    assert apart[1].text == "crm is not connected\n"
    assert apart[2].json() == {
        "live": True,
        "ready": False,
        "pipelines": {"crm": {"connected": False, "circuit": {"default": "closed"}}},
    }


async def test_a_zombie_is_not_live() -> None:
    run = Run()
    run.dead = "a consumer of crm\nis connected and consumes nothing"

    async with serving(run) as ops:
        live, health = await get(ops, "/livez"), await get(ops, "/healthz")

    assert (live.status_code, live.text) == (503, "a consumer of crm is connected and consumes nothing\n")
    assert (health.status_code, health.json()["live"]) == (503, False)


async def test_a_loop_that_is_far_too_late_is_not_live() -> None:
    async with serving() as ops:
        ops.lag.stop()  # so that the next measurement does not overwrite this one
        ops.lag.last = LATE + 1
        answer = await get(ops, "/livez")

    assert (answer.status_code, answer.text) == (503, "the event loop is 11.0 s late: something blocks it\n")


async def test_probes_are_never_answered_from_a_cache() -> None:
    async with serving() as ops:
        answers = [await get(ops, path) for path in ("/livez", "/readyz", "/healthz")]

    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


async def test_the_first_page_links_to_the_others() -> None:
    async with serving() as ops:
        page = await get(ops, "/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/metrics", "/livez", "/readyz", "/healthz"):
        assert f'href="{path}"' in page.text


async def test_other_paths_and_methods_are_refused_politely() -> None:
    async with serving() as ops, httpx2.AsyncClient(base_url=ops.address, trust_env=False) as client:
        unknown = await client.get("/debug")
        posted = await client.post("/metrics", content=b"x" * 100_000)
        head = await client.head("/metrics")
        again = await client.get("/livez")

    assert unknown.status_code == 404
    assert posted.status_code == 405
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/plain")
    assert again.status_code == 200


async def test_answers_do_not_name_the_server_software() -> None:
    async with serving() as ops:
        answers = [await get(ops, path) for path in ("/", "/livez", "/healthz", "/nowhere")]

    assert [answer.headers.get("server") for answer in answers] == [None] * 4


async def test_a_taken_port_is_refused_in_one_sentence() -> None:
    """F47: the metrics port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError) as refused:
            await serving(port=port).__aenter__()

    assert str(refused.value) == (
        f"port {port} on 127.0.0.1 is taken: choose another with --ops-port (0: any free one), "
        "or go without metrics and health with --no-ops"
    )


async def test_a_second_server_on_the_same_port_is_refused() -> None:
    async with serving() as ops:
        port = int(ops.address.rpartition(":")[2])

        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is taken"):
            await serving(port=port).__aenter__()

        assert (await get(ops, "/livez")).status_code == 200


async def test_the_port_is_free_again_at_once() -> None:
    async with serving() as first:
        port = int(first.address.rpartition(":")[2])
        await get(first, "/livez")

    async with serving(port=port) as second:
        assert (await get(second, "/livez")).status_code == 200


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
async def test_a_host_that_is_not_ours_is_refused_in_one_sentence(host: str) -> None:
    ops = Ops(host, 0, Run())

    with pytest.raises(ConfigError, match=rf"^cannot listen on {host} port 0 \(.+\): .+ --ops-host"):
        await ops.__aenter__()


@pytest.mark.parametrize("port", [-1, 65536])
async def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"--ops-port must be between 0 .* and 65535, got {port}"):
        serving(port=port)


@pytest.mark.parametrize("library", ["uvicorn", "starlette.applications"])
async def test_a_missing_library_is_named_with_its_extra(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # what Python itself does to forbid an import

    with pytest.raises(ConfigError, match=rf"needs {library}, .* install proca-flow\[ops\], .* --no-ops"):
        serving()


async def test_there_is_no_address_without_a_server() -> None:
    ops = serving()

    with pytest.raises(RuntimeError, match="only while it is served"):
        _ = ops.address


async def test_an_ipv6_address_is_written_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    ops = Ops("::1", 0, Run())
    try:
        await ops.__aenter__()
    except ConfigError:
        pytest.skip("this machine has no IPv6 loopback")
    address, answer = ops.address, await get(ops, "/livez")
    await ops.__aexit__(None, None, None)

    assert address.startswith("http://[::1]:")
    assert answer.status_code == 200


async def test_signals_stay_with_the_pipeline() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals, anyio.fail_after(10):
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        async with serving() as ops:
            await get(ops, "/livez")
            during = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            received = await anext(aiter(signals))
            answer = await get(ops, "/livez")

    assert during == before
    assert received is signal.SIGTERM
    assert answer.status_code == 200, "it serves until it is told to stop"


async def test_it_ends_with_idle_connections_open() -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        with anyio.fail_after(HANG):
            async with serving() as ops:
                for _ in range(3):
                    await client.get(ops.address + "/metrics")
                half = await connected(ops)
                await half.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and never the rest

        with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await half.receive()
        await half.aclose()


@pytest.mark.slow
async def test_it_ends_when_nobody_reads_the_answer() -> None:
    metrics = PipelineMetrics("crm")
    for number in range(1500):
        metrics.account(f"wrk.{number}.{'x' * 500}")

    with anyio.fail_after(HANG):
        async with serving(None, metrics) as ops:
            deaf = await connected(ops, receive_buffer=4096)
            await deaf.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            # The answer has begun; the rest does not fit into any buffer.
            assert (await deaf.receive(1)) == b"H"

    await deaf.aclose()


async def connected(ops: Ops, receive_buffer: int | None = None) -> anyio.abc.SocketStream:
    host, _, port = ops.address.removeprefix("http://").rpartition(":")
    stream = await anyio.connect_tcp(host, int(port))
    if receive_buffer is not None:
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    return stream


async def test_an_error_inside_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving():
            raise ZeroDivisionError


@pytest.mark.parametrize("asked", [True, False], ids=["serving", "just started"])
async def test_cancellation_closes_the_port_and_every_connection(asked: bool) -> None:
    address = ""

    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with serving() as ops:
            address, kept = ops.address, await connected(ops)
            if asked:
                await kept.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                await kept.receive()
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await kept.receive()
    await kept.aclose()
    await refused_at(address)
    async with serving() as another:
        assert (await get(another, "/livez")).status_code == 200


async def refused_at(address: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(address + "/livez")


async def test_leaving_at_once_closes_the_port() -> None:
    async with serving() as ops:
        address = ops.address

    await refused_at(address)


async def test_nothing_is_logged_in_normal_service(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="uvicorn")

    async with serving() as ops:
        await get(ops, "/metrics")
        await get(ops, "/nowhere")
        nonsense = await connected(ops)
        await nonsense.send(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        with anyio.fail_after(5):
            assert b"400" in await nonsense.receive()
        await nonsense.aclose()

    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_endpoints_run_on_the_thread_of_the_loop() -> None:
    threads = set()

    class Watching(Run):
        def live(self) -> str | None:
            threads.add(threading.current_thread())
            return None

        ready = live

    metrics = PipelineMetrics("crm")
    metrics.in_progress = lambda: threads.add(threading.current_thread()) or 0
    async with serving(Watching(), metrics) as ops:
        for path in ("/metrics", "/livez", "/readyz", "/healthz"):
            await get(ops, path)

    assert threads == {threading.current_thread()}
