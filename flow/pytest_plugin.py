"""The fixtures that pytest finds once flow is installed."""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import pytest

from flow.pipeline import Pipeline

if TYPE_CHECKING:
    from flow.devbroker.server import DevBroker

P = TypeVar("P", bound=Pipeline[Any, Any])


class Configure(Protocol):
    """What the fixture `configured` is."""

    def __call__(self, pipeline: type[P], environment: Mapping[str, str], **options: object) -> P:
        """Return an instance of *pipeline* with its settings from *environment*; *options* replace its own.

        Raises:
            ConfigError: an option, a setting or the class is wrong, or something is missing.
        """


@pytest.fixture
def configured() -> Configure:
    """Make pipelines as `flow run` does, with a mapping in place of the environment.

    `configured(Crm, {"CRM_URL": "https://crm.example.org", "CRM_TOKEN": "x"}, handler_timeout=0.1)`
    """

    def configure(pipeline: type[P], environment: Mapping[str, str], **options: object) -> P:
        return cast("P", pipeline.configured(environment, **options))

    return configure


@pytest.fixture
async def devbroker(anyio_backend: object) -> "AsyncIterator[DevBroker]":
    """An AMQP broker in memory, on a free port: `devbroker.url()`, `devbroker.clock`, `devbroker.faults`."""
    from flow.devbroker.server import DevBroker

    async with DevBroker() as broker:
        yield broker
