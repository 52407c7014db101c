"""What `flow run` does before anything is connected to."""

from pathlib import Path

import pytest

from flow.cli.run import made
from flow.deadletters import rejects
from flow.errors import ConfigError, TargetError
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.schema import IdsMessage
from flow.target import chosen

OPTIONS = dict.fromkeys(("queue", "concurrency", "prefetch", "retry_delay", "dead_letter"))


class Limited(Pipeline[IdsMessage]):
    queue = "ids"
    rate_limit = RateLimit(calls=10, per=2.0)

    def handle_message(self, message):  # type: ignore[no-untyped-def, override]
        return message.body


class Told(Limited):
    def __init__(self, settings: object = None) -> None:
        super().__init__(settings)
        self.rate_limit = RateLimit(calls=8, per=1.0)  # as its settings say


def test_workers_share_the_limit_that_the_settings_give() -> None:
    assert made(Told, OPTIONS, 4, strict=True).rate_limit == RateLimit(calls=2, per=1.0)


def test_workers_share_the_rate_limit() -> None:
    alone, shared = made(Limited, OPTIONS, strict=False), made(Limited, OPTIONS, 4, strict=False)

    assert alone.rate_limit == RateLimit(calls=10, per=2.0)
    assert shared.rate_limit == RateLimit(calls=2.5, per=2.0)
    assert Limited.rate_limit == RateLimit(calls=10, per=2.0)


class Ordered(Limited):
    queue = "ids"

    def partition_key(self, message):  # type: ignore[no-untyped-def]
        return message.body.org_id


def test_an_order_by_keys_is_not_for_several_workers() -> None:
    """Messages of one key would be handled by several of them at the same time."""
    made(Ordered, OPTIONS, strict=False)
    with pytest.raises(ConfigError, match=r"^--workers 2 .* Ordered\.partition_key"):
        made(Ordered, OPTIONS, 2, strict=False)


def test_what_is_named_twice_runs_once() -> None:
    assert [cls.name for cls in chosen(["pipelines.crm", "pipelines.crm:Crm"])] == ["crm"]


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their metrics would be one."""
    source = (
        "from flow import Pipeline\nfrom flow.schema import IdsMessage\n"
        "class Same(Pipeline[IdsMessage]):\n    queue = 'ids'\n    def handle_message(self, message): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("first_of_two", "second_of_two"):
        (tmp_path / f"{name}.py").write_text(source)

    with pytest.raises(TargetError) as caught:
        chosen(["first_of_two", "second_of_two"])

    assert str(caught.value) == (
        "first_of_two:Same and second_of_two:Same are both called same: give one of them another name"
    )


def test_it_is_said_on_the_command_line_that_a_queue_has_a_retry_loop() -> None:
    own = OPTIONS | {"queue": "acme.webhook"}

    doubted, said = (made(Limited, own | {"dead_letter": one}, strict=False) for one in (None, "assume"))

    assert not rejects(doubted, "acme.webhook")
    assert rejects(said, "acme.webhook")


def test_strict_makes_a_warning_an_error(caplog: pytest.LogCaptureFixture) -> None:
    narrow = OPTIONS | {"prefetch": 1}

    made(Limited, narrow, strict=False)
    with pytest.raises(ConfigError, match="prefetch 1 is below"):
        made(Limited, narrow, strict=True)
