"""A private PostgreSQL server in a folder of its own, gone with it at the end of the tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from pathlib import Path

from tests.nodes.postgresql_control import PostgreSQLControl

HOST = "127.0.0.1"
ACCOUNT = "postgres"  # root may not run a server
START = 60.0  # seconds

# Ends the server and clears its folder when the process that started it is gone, even by SIGKILL.
GUARD = 'cat >/dev/null; kill -QUIT "$1" 2>/dev/null; sleep 1; kill -9 "$1" 2>/dev/null; rm -rf -- "$2"'


class PostgreSQLNode(PostgreSQLControl):
    """A server of its own: own port and data; whoever reaches its port is let in."""

    def __init__(self) -> None:
        """Make its data folder and start it; returns when it accepts connections."""
        self.folder = Path(tempfile.mkdtemp(prefix="flow-postgresql-"))
        self._processes: list[subprocess.Popen[bytes]] = []  # the server and its guard, while it runs
        self._finalizer = weakref.finalize(self, clear, self._processes, self.folder)
        with socket.create_server((HOST, 0)) as free:
            self.port: int = free.getsockname()[1]
        super().__init__(f"postgresql://postgres@{HOST}:{self.port}/postgres")
        self._owner = ACCOUNT if os.geteuid() == 0 else None
        if self._owner:
            shutil.chown(self.folder, self._owner, self._owner)
        self._run(
            "initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D", "data"
        )
        self.start()

    def start(self) -> None:
        """Start it, on the data of the last time."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # the data live as long as the tests
            "shared_buffers": "16MB",
            "max_connections": "100",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            server = subprocess.Popen(
                [str(program("postgres")), "-D", "data", *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._owner,
                group=self._owner,
                extra_groups=[] if self._owner else None,
            )
        guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(server.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes += [server, guard]
        self._until_ready()

    @property
    def runs(self) -> bool:
        """Whether it is started."""
        return bool(self._processes)

    def stop(self) -> None:
        """End it at once (connections are cut); the data stay."""
        end(self._processes)

    def freeze(self) -> None:
        """Stop all its processes in mid-air (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def discard(self) -> None:
        """End it at once and remove its folder."""
        self._finalizer()

    def _signal(self, number: signal.Signals) -> None:
        server = self._processes[0].pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for pid in [server, *map(int, children)]:
            os.kill(pid, number)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(program(name)), *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            user=self._owner,
            group=self._owner,
            extra_groups=[] if self._owner else None,
            timeout=START,
        )

    def _until_ready(self) -> None:
        """Wait until it accepts connections."""
        look = [str(program("pg_isready")), "-q", "-h", HOST, "-p", str(self.port), "-t", "1"]
        done = subprocess.run(
            ["/bin/sh", "-c", 'until "$@"; do sleep 0.05; kill -0 "$SERVER" || exit 1; done', "look", *look],
            env={**os.environ, "SERVER": str(self._processes[0].pid)},
            timeout=START,
            check=False,
        )
        if done.returncode or self._processes[0].poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-500:]}")


def program(name: str) -> Path:
    """Return the path of a program of PostgreSQL, which Debian keeps out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=version, reverse=True)
    plain = found[0] if found else shutil.which(name)
    if plain is None:
        raise RuntimeError(f"{name} is not on this machine: install PostgreSQL (Debian: postgresql)")
    return Path(plain)


def version(path: Path) -> int:
    """Return the version that is in the path of a program."""
    return int(path.parts[-3]) if path.parts[-3].isdigit() else 0


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the processes, the guard first: it must not act on a free process id."""
    while processes:
        process = processes.pop()
        if process.stdin is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            continue
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGQUIT)  # its children end with it
        process.wait()


def clear(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Leave nothing behind."""
    end(processes)
    shutil.rmtree(folder, ignore_errors=True)
