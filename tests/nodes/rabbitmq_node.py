"""A private RabbitMQ node in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import anyio

from flow.errors import BrokerError
from tests.nodes.rabbitmq_control import RabbitMQControl, run

START = 120.0  # seconds until a node must accept connections; 6 to 12 are usual, more with plugins
STOP = 15.0  # seconds until a node must have ended
LOOK = 0.05  # seconds between two looks at a process that starts or ends
ERRORS = 5  # lines of the log that are quoted
HOST = "127.0.0.1"
SYSTEM_SCRIPTS = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

# Ends the node and clears its folder when the process that started it is gone, even by SIGKILL: its standard
# input ends then.
GUARD = 'cat >/dev/null; kill -9 "$1" 2>/dev/null; sleep 1; rm -rf -- "$2"'


@dataclass(frozen=True)
class Certificate:
    """PEM files for a TLS listener."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def issued(cls, folder: Path, *names: str) -> "Certificate":
        """Have an authority of its own issue one for *names*, in *folder*."""
        import trustme  # benchmarks start nodes too, where it is not installed

        authority = trustme.CA()
        issued = authority.issue_cert(*names)
        made = cls(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
        authority.cert_pem.write_to_path(made.authority)
        issued.cert_chain_pems[0].write_to_path(made.certificate)
        issued.private_key_pem.write_to_path(made.key)
        return made


class RabbitMQNode(RabbitMQControl):
    """A RabbitMQ node of its own: own name, ports, cookie and data; gone with its folder at the end.

    `async with RabbitMQNode() as node:` starts and stops it; guest/guest may do everything. It ends only
    what it started; the port mapper epmd is shared by all nodes of a machine and is left alone.
    """

    def __init__(
        self,
        *,
        config: str = "",
        advanced: str = "",
        tls: Certificate | None = None,
        plugins: Sequence[str] = (),
    ) -> None:
        """Write its files; nothing runs yet.

        *config* is added to rabbitmq.conf, *advanced* is the text of advanced.config (`consumer_timeout`
        belongs there). With *tls* there is a second listener, at `tls_port`. Of the *plugins*,
        rabbitmq_management answers at `management_port`.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="flow-rabbitmq-"))
        port, self.tls_port, self.management_port, distribution = free_ports(4)
        name = f"flow-{os.getpid()}-{secrets.token_hex(4)}@localhost"
        super().__init__(node=name, host=HOST, port=port)
        self._environment = surroundings(self.folder, name, distribution)
        if "rabbitmq_management" in plugins:
            config += f"\nmanagement.tcp.ip = {HOST}\nmanagement.tcp.port = {self.management_port}"
        self._write_files(config, advanced, tls, plugins)
        self._processes: list[subprocess.Popen[bytes]] = []  # the node and its guard, while it runs
        self._finalizer = weakref.finalize(self, clear, self._processes, self.folder)

    @property
    def pid(self) -> int:
        """The process id of the running node."""
        return self._processes[0].pid

    def tls_url(self, vhost: str = "/", *, cafile: Path | None = None) -> str:
        """Return the AMQP URL of the TLS listener, by the name localhost."""
        path = self.url(vhost).rpartition("/")[2]
        query = f"?cafile={cafile}" if cafile else ""
        return f"amqps://guest:guest@localhost:{self.tls_port}/{path}{query}"

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, which takes about a second, and return what it prints.

        Raises:
            BrokerError: it failed, or did not end in 60 seconds.
        """
        return await run([str(find_script("rabbitmqctl")), "-q", *arguments], environment=self._environment)

    async def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node and return the printed result: some milliseconds where erl_call is.

        Raises:
            BrokerError: the expression failed, or the node did not answer.
        """
        erl_call = shutil.which("erl_call")
        if erl_call is None:
            return await super().evaluate(expression)
        command = [erl_call, "-n", str(self.name), "-e"]
        text = f'lists:flatten(io_lib:format("~0p", [begin {expression} end])).\n'
        printed = (await run(command, text, self._environment)).strip()
        if not printed.startswith('{ok, "'):
            raise BrokerError(f"The RabbitMQ node answered {printed[:300]}")
        return printed.removeprefix('{ok, "').removesuffix('"}').replace('\\"', '"')

    async def start(self) -> None:
        """Start it, on the data of the last time, and return when it accepts connections.

        Raises:
            BrokerError: it ended or did not accept within 120 seconds; the text quotes its log.
        """
        try:
            self._spawn()
            with anyio.fail_after(START):
                while not await self._accepts():  # noqa: ASYNC110 (no event tells of it)
                    await anyio.sleep(LOOK)
        except BaseException as error:
            end(self._processes)
            if isinstance(error, TimeoutError):
                raise BrokerError(
                    f"The RabbitMQ node did not start in {START:.0f} seconds: {self._log()}"
                ) from None
            raise

    async def stop(self) -> None:
        """Stop it in order, or kill it when that takes over 15 seconds; the data stay."""
        if self._processes:
            self.thaw()
            self._processes[0].terminate()
        with anyio.move_on_after(STOP, shield=True):
            while self._processes and self._processes[0].poll() is None:  # noqa: ASYNC110
                await anyio.sleep(LOOK)
        self.kill()

    async def restart(self) -> None:
        """Stop it in order and start it with the same data."""
        await self.stop()
        await self.start()

    def kill(self) -> None:
        """End it at once (SIGKILL); the data stay as they are."""
        end(self._processes)

    def discard(self) -> None:
        """End it at once and remove its folder."""
        self._finalizer()

    def freeze(self) -> None:
        """Stop its process in mid-air (SIGSTOP): connections stay open, nothing answers.

        A busy machine stops the last of its threads some moments after the signal: that is waited for.
        """
        process = self._processes[0]
        process.send_signal(signal.SIGSTOP)
        ends = time.monotonic() + 10
        while not stopped(process.pid) and time.monotonic() < ends:
            time.sleep(0.01)

    def thaw(self) -> None:
        """Let a frozen node go on (SIGCONT)."""
        self._processes[0].send_signal(signal.SIGCONT)

    async def __aenter__(self) -> "RabbitMQNode":
        try:
            await self.start()
        except BaseException:
            self.discard()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        self.discard()

    def _write_files(
        self, config: str, advanced: str, tls: Certificate | None, plugins: Sequence[str]
    ) -> None:
        """Write configuration, cookie and the list of plugins."""
        lines = [f"listeners.tcp.1 = {HOST}:{self.port}", config]
        if tls is not None:
            lines += [
                f"listeners.ssl.1 = {HOST}:{self.tls_port}",
                f"ssl_options.cacertfile = {tls.authority}",
                f"ssl_options.certfile = {tls.certificate}",
                f"ssl_options.keyfile = {tls.key}",
            ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text(f"[{', '.join(plugins)}].\n")
        if advanced:
            (self.folder / "advanced.config").write_text(advanced)
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def _spawn(self) -> None:
        """Start the node and its guard."""
        with ExitStack() as stack:
            console = stack.enter_context((self.folder / "console.log").open("ab"))
            node = subprocess.Popen(
                [find_script("rabbitmq-server")],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._processes.append(node)
        self._processes.append(
            subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", str(node.pid), str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    async def _accepts(self) -> bool:
        """Whether it answers the first bytes of an AMQP connection.

        Raises:
            BrokerError: it has ended.
        """
        if self._processes[0].poll() is not None:
            raise BrokerError(f"The RabbitMQ node ended while it started: {self._log()}")
        try:
            async with await anyio.connect_tcp(HOST, self.port) as stream:
                await stream.send(PROTOCOL_HEADER)
                return bool(await stream.receive())
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return False

    def _log(self) -> str:
        """Return the first errors that it printed, or else the end of what it printed."""
        path = self.folder / "console.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        errors = [line.partition("> ")[2].strip() for line in lines if "[error]" in line]
        found = [error for error in errors if error][:ERRORS] or lines[-ERRORS:]
        return "; ".join(found) or "it printed nothing"


def find_script(name: str) -> Path:
    """Return the path of a RabbitMQ script, past the wrapper that changes the account.

    Raises:
        BrokerError: RabbitMQ is not installed here.
    """
    for folder in sorted(Path("/").glob(SYSTEM_SCRIPTS), reverse=True):
        if (folder / name).is_file():
            return folder / name
    found = shutil.which(name) or shutil.which(name, path="/opt/rabbitmq/sbin:/usr/local/sbin:/usr/sbin")
    if found is None:
        raise BrokerError(f"{name} is not on this machine: install RabbitMQ (Debian: rabbitmq-server)")
    return Path(found)


def surroundings(folder: Path, name: str, distribution: int) -> dict[str, str]:
    """Return the environment that keeps a node, and commands for it, inside *folder*."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node instead of waiting for it
    }


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill the processes and take leave of them, the guard first: it must not act on a free process id."""
    while processes:
        process = processes.pop()
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def clear(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Leave nothing behind."""
    end(processes)
    shutil.rmtree(folder, ignore_errors=True)


def stopped(pid: int) -> bool:
    """Tell whether every thread of a process has stopped."""
    states = [
        stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return all(state in "TtZ" for state in states)
