"""The demonstration CRM as a process of its own, and what it remembers when it is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from flow.demo.crm_server import CrmServer

pytestmark = pytest.mark.anyio


@contextmanager
def process(effects: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "flow.demo.crm_server", "--effects", str(effects)]
    environment = {**os.environ, "CRM_TOKEN": "t"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().strip().removeprefix("CRM_URL=")
        finally:
            running.kill()


def tell(url: str, *ids: str) -> httpx2.Response:
    items: list[dict[str, Any]] = [{"id": one} for one in ids]
    return httpx2.post(f"{url}/contacts", json=items, headers={"Authorization": "Bearer t"}, trust_env=False)


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    effects = tmp_path / "effects.jsonl"
    with process(effects) as (running, url):
        tell(url, "a", "b")
        running.send_signal(signal.SIGKILL)
    with process(effects) as (_, url):
        tell(url, "b")
        counted = httpx2.get(f"{url}/effects", trust_env=False).json()

    assert counted == {"a": 1, "b": 2}
    assert [json.loads(line)["id"] for line in effects.read_text().splitlines()] == ["a", "b", "b"]


def test_faults_can_be_set_from_outside(tmp_path: Path) -> None:
    with process(tmp_path / "effects.jsonl") as (_, url):
        accepted = httpx2.put(f"{url}/faults", json={"outage": True}, trust_env=False)
        misspelt = httpx2.put(f"{url}/faults", json={"outrage": True}, trust_env=False)
        told = tell(url, "a")

    assert (accepted.status_code, misspelt.status_code, told.status_code) == (204, 400, 503)


async def test_waiting_for_an_effect_ends_with_it() -> None:
    async with CrmServer(token="t") as crm:
        async with anyio.create_task_group() as together:
            together.start_soon(anyio.to_thread.run_sync, tell, crm.url, "a")
            with anyio.fail_after(20):
                await crm.until(lambda: "a" in crm.records)

        assert crm.effects == {"a": 1}


async def test_a_taken_port_is_a_sentence() -> None:
    command = [sys.executable, "-m", "flow.demo.crm_server", "--port"]
    async with CrmServer() as crm:
        ended = await anyio.run_process([*command, str(crm.port)], check=False)

    assert (ended.returncode, ended.stdout) == (78, b"")
    taken = f"port {crm.port} on 127.0.0.1 is taken: choose another with --port (0: any free one)"
    assert ended.stderr.decode() == f"flow: {taken}\n"


@pytest.mark.parametrize(
    ("given", "printed"), [({}, ["CRM_URL", "CRM_TOKEN"]), ({"CRM_TOKEN": "t"}, ["CRM_URL"])]
)
def test_it_prints_the_settings_that_are_not_known(given: dict[str, str], printed: list[str]) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "CRM_TOKEN"}
    command = [sys.executable, "-m", "flow.demo.crm_server"]
    with subprocess.Popen(command, env=bare | given, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in printed]
        running.terminate()
        lines += running.stdout

    assert [line.partition("=")[0] for line in lines] == printed
