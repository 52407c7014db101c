"""Flow as it is run: session, typed bodies, async handler, keyed batches, settling, metrics."""

import os
import sys
from pathlib import Path
from typing import Any

from clock import Clock

sys.path.insert(0, str(Path(__file__).parent.parent))

from measured import PIPELINES

from flow import Message
from flow.broker.url import BrokerUrl
from flow.cli.options import opened
from flow.records.url import DatabaseUrl
from flow.runner import Runner, RunOptions


async def main() -> None:
    """Run until the last message is handled, then drain: open batches go, and the session is closed."""
    options = clock.options
    pipeline = PIPELINES[options.kind]

    class Measured(pipeline):  # type: ignore[misc, valid-type]
        prefetch = options.prefetch

        async def handle_message(self, message: Message[Any]) -> Any:
            if clock.tick():
                runner.stop()
            return message.body

    async with opened(DatabaseUrl.from_environment(os.environ)) as database:
        runner = Runner(Measured(), BrokerUrl.parse(clock.url), RunOptions(database=database))
        await runner.run()
    account, batches = runner.account, runner.metrics.batch_size["default"].count
    assert account.delivered == account.received == options.messages, str(account)
    clock.report(batches=batches)


clock = Clock()
clock.run(main())
