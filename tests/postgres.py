"""A PostgreSQL of the tests' own: a new cluster in a temporary folder, reached through a socket there."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp

import psycopg

from tests.needs import POSTGRES

USER = "nobody" if os.geteuid() == 0 else None
"""PostgreSQL does not run as root."""


class Cluster:
    """A cluster that can be stopped and started again.

    Attributes:
        programs: the folder of PostgreSQL's programs.
    """

    def __init__(self) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        self.programs = programs[-1].parent if programs else Path(POSTGRES.program("pg_ctl")).resolve().parent
        self._folder = Path(mkdtemp(prefix="postgres-"))
        if USER is not None:
            shutil.chown(self._folder, USER)
        self._made = 0
        self._run("initdb", "--pgdata", self._data, "--auth", "trust", "--username", "inspect", "--no-sync")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        subprocess.run(command, user=USER, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Returns when it accepts connections."""
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def stop(self) -> None:
        """Ends it, and with it all connections."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", "immediate")

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"test{self._made}"
        with psycopg.connect(host=str(self._folder), user="inspect", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://inspect@/{name}?host={self._folder}"

    def remove(self) -> None:
        """Ends it for good."""
        self.stop()
        shutil.rmtree(self._folder)
