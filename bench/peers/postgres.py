"""A PostgreSQL with default settings in a directory of its own, and its `psql`."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final, Self

from listener.demo.processes import Child, ProcessFailed, free_port

USER: Final = "postgres"
HOST: Final = "127.0.0.1"
ERROR: Final = "ERROR:"
STOP_S: Final = 20.0


def program(name: str) -> Path:
    """A program of the newest PostgreSQL that is installed, Debian's directories first.

    Raises:
        ProcessFailed: there is none.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[-3])
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        raise ProcessFailed(f"{name} is missing: install PostgreSQL, e.g. 'sudo apt-get install postgresql'")
    return Path(found)


def unprivileged() -> list[str]:
    """What makes a command run as somebody else: PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups"]


class Postgres(Child):
    """A new, empty PostgreSQL on a free port of 127.0.0.1, with the superuser `postgres` and no password.

    Args:
        directory: where it may write.
    """

    def __init__(self, directory: Path) -> None:
        data = directory / "data"
        create: list[str | Path] = [
            program("initdb"),
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--no-locale",
        ]
        directory.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(directory, pwd.getpwnam(USER).pw_uid, -1)
        subprocess.run([*unprivileged(), *create], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        self.port = free_port()
        start: list[str | Path] = [
            program("postgres"),
            "-D",
            data,
            "-h",
            HOST,
            "-p",
            str(self.port),
            "-k",
            "",
        ]
        super().__init__("postgres", [*unprivileged(), *start], ready="ready to accept connections")

    @property
    def url(self) -> str:
        """Of its database `postgres`."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{USER}"

    def psql(self, *options: str) -> list[str]:
        """The command that asks it."""
        connection = ["-h", HOST, "-p", str(self.port), "-U", USER]
        return [str(program("psql")), *connection, "-XAtq", "-v", "VERBOSITY=terse", *options]

    def rows(self, query: str) -> list[list[str]]:
        """All rows of a query."""
        done = subprocess.run(self.psql("-c", query), check=True, capture_output=True, text=True)  # noqa: S603
        return [line.split("|") for line in done.stdout.splitlines()]

    def stop(self) -> int:
        """End it at once, but in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_S)
        return super().stop()


class Session:
    """A `psql` that stays connected, for questions with one line of answer.

    Args:
        postgres: whom to ask.
    """

    def __init__(self, postgres: Postgres) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            postgres.psql(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    def number(self, query: str) -> int:
        """The answer to a query; 0 if it is an error, as the tables come with time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(query + ";\n")
        answer = self._process.stdout.readline()
        return 0 if ERROR in answer else int(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
