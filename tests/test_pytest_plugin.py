"""The pytest plugin, as it is found in a project that has flow installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from flow.errors import ConfigError
from flow.pytest_plugin import Configure
from pipelines.crm import Crm

ENVIRONMENT = {"CRM_URL": "https://crm.example.org", "CRM_TOKEN": "x"}

PROJECT = """
from typing import ClassVar

import pytest

from flow import Message, Pipeline, Settings
from flow.errors import NotFound
from flow.schema import ActionMessage
from flow.testing import running, until


class HookSettings(Settings):
    prefix: ClassVar = "HOOK"
    url: str


class Hook(Pipeline[ActionMessage]):
    queue = "acme.hook"
    settings: HookSettings

    def handle_message(self, message: Message[ActionMessage]) -> ActionMessage:
        return message.body


@pytest.mark.anyio
async def test_broker(devbroker) -> None:
    with pytest.raises(NotFound, match="The queue acme.hook does not exist"):
        async with running(Hook(HookSettings(url="https://example.org")), devbroker.url()):
            await until(lambda: False)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_settings(configured) -> None:
    assert configured(Hook, {"HOOK_URL": "https://example.org"}).settings.url == "https://example.org"
"""


def test_settings_come_from_a_mapping_only(configured: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_MODE", "opt_in")

    crm = configured(Crm, ENVIRONMENT, handler_timeout=0.1)

    assert isinstance(crm, Crm)
    assert (crm.settings.url, crm.settings.mode, crm.handler_timeout) == (
        "https://crm.example.org",
        "all",
        0.1,
    )


def test_what_is_missing_is_told(configured: Configure) -> None:
    with pytest.raises(ConfigError, match="CRM_TOKEN"):
        configured(Crm, {"CRM_URL": "https://crm.example.org"})


def test_a_project_finds_the_fixtures(tmp_path: Path) -> None:
    """Without a line of set-up, and with every warning an error."""
    (tmp_path / "test_hook.py").write_text(PROJECT)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_importing_it_loads_neither_stages_nor_client_libraries() -> None:
    code = "import sys, flow.pytest_plugin; print(*sorted(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    heavy = {"aiormq", "pamqp", "prometheus_client", "starlette", "uvicorn", "flow.stages", "flow.testing"}
    assert heavy & set(done.stdout.split()) == set()
