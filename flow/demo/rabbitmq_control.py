"""What an operator does to a RabbitMQ node: virtual hosts, accounts, closed connections, queue lengths."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, CalledProcessError
from urllib.parse import quote

import anyio

from flow.errors import BrokerError

DEADLINE = 60.0  # seconds for one command; a frozen node answers none
SYSTEM_SCRIPTS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"


@dataclass(frozen=True)
class QueueLength:
    """How many messages of a queue are ready, and how many are delivered and unacknowledged."""

    ready: int
    unacknowledged: int


class RabbitMQControl:
    """A RabbitMQ node that may be asked anything: its address, and the commands of an operator."""

    def __init__(
        self,
        *,
        node: str,
        port: int,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Take the Erlang name of the node and the *environment* in which its cookie is found."""
        self.name = node
        self.host = host
        self.port = port
        self._environment = environment

    def url(self, vhost: str = "/", *, user: str = "guest", password: str = "guest") -> str:
        """Return the AMQP URL of *vhost* for an account."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, which takes about a second, and return what it prints.

        Raises:
            BrokerError: it failed, or did not end in 60 seconds.
        """
        return await self._run([str(find_script("rabbitmqctl")), "-q", "-n", self.name, *arguments])

    async def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node and return the printed result: some milliseconds where erl_call is.

        Raises:
            BrokerError: the expression failed, or the node did not answer.
        """
        erl_call = shutil.which("erl_call")
        if erl_call is None:
            return (await self.ctl("eval", f"{expression}.")).strip()
        printed = await self._run([erl_call, "-n", self.name, "-e"], f"{expression}.\n")
        if not printed.startswith("{ok, "):
            raise BrokerError(f"The RabbitMQ node {self.name} answered {printed[:300]}")
        return printed.strip().removeprefix("{ok, ").removesuffix("}")

    async def add_vhost(self, vhost: str, *, user: str = "guest") -> None:
        """Make a virtual host in which *user* may do everything."""
        await self.evaluate(f"rabbit_vhost:add({binary(vhost)}, {binary('flow')})")
        await self.permit(user, vhost, ".*", ".*", ".*")

    async def delete_vhost(self, vhost: str) -> None:
        """Remove a virtual host with everything in it; its connections are closed."""
        await self.evaluate(f"rabbit_vhost:delete({binary(vhost)}, {binary('flow')})")

    async def add_user(self, user: str, password: str) -> None:
        """Make an account that may not do anything yet."""
        function = "rabbit_auth_backend_internal:add_user"
        await self.evaluate(f"{function}({binary(user)}, {binary(password)}, {binary('flow')})")

    async def delete_user(self, user: str) -> None:
        """Remove an account."""
        await self.evaluate(f"rabbit_auth_backend_internal:delete_user({binary(user)}, {binary('flow')})")

    async def permit(self, user: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Set what *user* may do in *vhost*: three regular expressions over names."""
        names = ", ".join(binary(text) for text in (user, vhost, configure, write, read, "flow"))
        await self.evaluate(f"rabbit_auth_backend_internal:set_permissions({names})")

    async def close_all_connections(self, reason: str = "closed by the operator") -> None:
        """Close every AMQP connection, as `rabbitmqctl close_all_connections` does."""
        await self.evaluate(
            f"[rabbit_networking:close_connection(P, {binary(reason)}) || "
            "P <- rabbit_networking:connections()], ok"
        )

    async def connection_names(self, vhost: str) -> list[str]:
        """Return the names that the clients of *vhost* gave their connections."""
        printed = await self.evaluate(
            "[{connection, proplists:get_value(user_provided_name, C), proplists:get_value(vhost, C)}"
            " || C <- rabbit_networking:connection_info_all([user_provided_name, vhost])]"
        )
        found = re.findall(r'\{connection,\s*<<"([^"]*)">>,\s*<<"([^"]*)">>\}', printed)
        return sorted(name for name, where in found if where == vhost)

    async def queue_lengths(self, vhost: str) -> dict[str, QueueLength]:
        """Return how many messages wait in each queue of *vhost*."""
        printed = await self.evaluate(
            "[{N, R, U} || Q <- rabbit_amqqueue:list(" + binary(vhost) + "), "
            "[{name, {resource, _, queue, N}}, {messages_ready, R}, {messages_unacknowledged, U}] <- "
            "[rabbit_amqqueue:info(Q, [name, messages_ready, messages_unacknowledged])]]"
        )
        found = re.findall(r'\{<<"([^"]*)">>,\s*(\d+),\s*(\d+)\}', printed)
        return {name: QueueLength(int(ready), int(unacknowledged)) for name, ready, unacknowledged in found}

    async def _run(self, command: list[str], text: str = "") -> str:
        try:
            with anyio.fail_after(DEADLINE):
                done = await anyio.run_process(
                    command, input=text.encode(), stderr=PIPE, env=self._environment
                )
        except TimeoutError:
            raise BrokerError(f"{command[0]} did not end in {DEADLINE:.0f} seconds") from None
        except OSError as error:
            raise BrokerError(f"{command[0]} cannot be run: {error.strerror}") from error
        except CalledProcessError as error:
            said = (error.stderr or error.stdout).decode(errors="replace").strip()
            raise BrokerError(f"{Path(command[0]).name} failed: {said[:1000]}") from None
        return done.stdout.decode(errors="replace")


def find_script(name: str) -> Path:
    """Return the path of a RabbitMQ script, past the wrapper that changes the account.

    Raises:
        BrokerError: RabbitMQ is not installed here.
    """
    pattern = Path(SYSTEM_SCRIPTS)
    for folder in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))), reverse=True):
        if (folder / name).is_file():
            return folder / name
    found = shutil.which(name) or shutil.which(name, path="/opt/rabbitmq/sbin:/usr/local/sbin:/usr/sbin")
    if found is None:
        raise BrokerError(f"{name} is not on this machine: install RabbitMQ (Debian: rabbitmq-server)")
    return Path(found)


def binary(text: str) -> str:
    """Write *text* as an Erlang binary."""
    return "<<" + ",".join(str(byte) for byte in text.encode()) + ">>"
