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
        port: int,
        host: str = "127.0.0.1",
        node: str | None = None,
        user: str = "guest",
        password: str = "guest",
    ) -> None:
        """Take its address, an account that may do everything, and its Erlang name (None: the default)."""
        self.name = node
        self.host = host
        self.port = port
        self.user = user
        self.password = password

    def url(self, vhost: str = "/", *, user: str = "", password: str = "") -> str:
        """Return the AMQP URL of *vhost* for an account; without one, for the one that may do everything."""
        login = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, which takes about a second, and return what it prints.

        Raises:
            BrokerError: it failed, or did not end in 60 seconds.
        """
        script = shutil.which("rabbitmqctl")  # the wrapper of the system, which may change the account
        if script is None:
            raise BrokerError("rabbitmqctl is not on the PATH: install RabbitMQ (Debian: rabbitmq-server)")
        name = ["-n", self.name] if self.name else []
        return await run([script, "-q", *name, *arguments])

    async def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node and return the printed result.

        Raises:
            BrokerError: the expression failed, or the node did not answer.
        """
        return (await self.ctl("eval", f"{expression}.")).strip()

    async def add_vhost(self, vhost: str) -> None:
        """Make a virtual host in which the account that may do everything may do everything."""
        await self.evaluate(f"rabbit_vhost:add({binary(vhost)}, {binary('flow')})")
        await self.permit(self.user, vhost, ".*", ".*", ".*")

    async def delete_vhost(self, vhost: str) -> None:
        """Remove a virtual host with everything in it; its connections are closed."""
        await self.evaluate(f"rabbit_vhost:delete({binary(vhost)}, {binary('flow')})")

    async def add_user(self, user: str, password: str) -> None:
        """Make an account that may not do anything yet."""
        function = "rabbit_auth_backend_internal:add_user"
        await self.evaluate(f"{function}({binary(user)}, {binary(password)}, {binary('flow')})")

    async def change_password(self, user: str, password: str) -> None:
        """Let *user* log in with another password; open connections live on."""
        function = "rabbit_auth_backend_internal:change_password"
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

    async def close_connections_of(self, vhost: str, reason: str = "closed by the operator") -> None:
        """Close every AMQP connection to *vhost*, and no other."""
        await self.evaluate(
            f"[rabbit_networking:close_connection(P, {binary(reason)}) || [{{pid, P}}, {{vhost, V}}] <- "
            f"rabbit_networking:connection_info_all([pid, vhost]), V == {binary(vhost)}], ok"
        )

    async def connection_names(self, vhost: str) -> list[str]:
        """Return the names that the clients of *vhost* gave their connections."""
        printed = await self.evaluate(
            "[{N, V} || [{client_properties, P}, {vhost, V}] <- "
            "rabbit_networking:connection_info_all([client_properties, vhost]), is_list(P), "
            '{<<"connection_name">>, _, N} <- P]'
        )
        found = re.findall(r'\{<<"([^"]*)">>,\s*<<"([^"]*)">>\}', printed)
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


async def run(command: list[str], text: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Run a command with *text* as its input and return what it prints.

    Raises:
        BrokerError: it failed, or did not end in 60 seconds.
    """
    try:
        with anyio.fail_after(DEADLINE):
            done = await anyio.run_process(command, input=text.encode(), stderr=PIPE, env=environment)
    except TimeoutError:
        raise BrokerError(f"{command[0]} did not end in {DEADLINE:.0f} seconds") from None
    except OSError as error:
        raise BrokerError(f"{command[0]} cannot be run: {error.strerror}") from error
    except CalledProcessError as error:
        said = (error.stderr or error.stdout).decode(errors="replace").strip()
        raise BrokerError(f"{Path(command[0]).name} failed: {said[:1000]}") from None
    return done.stdout.decode(errors="replace")


def binary(text: str) -> str:
    """Write *text* as an Erlang binary."""
    return "<<" + ",".join(str(byte) for byte in text.encode()) + ">>"
