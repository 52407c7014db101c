"""The fixtures that pytest finds once flow is installed."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

import pytest

from flow.pipeline import Pipeline

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
