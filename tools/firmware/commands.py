"""Commands that are printed before they run."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import CommandFailed

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Commands:
    """Runs commands in the repository's top folder and prints each."""

    #: Whether commands that need a board are only printed.
    dry_run: bool = False

    def run(self, *command: str | Path, **environment: str) -> str:
        """Runs a command and returns what it printed.

        Args:
            environment: variables that are set for it.

        Raises:
            CommandFailed: it is not installed, or its status is not 0.
        """
        self._print(command, environment)
        try:
            ended = subprocess.run(
                [str(word) for word in command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise CommandFailed(f"{command[0]} cannot be run: {error.strerror}") from error
        if ended.returncode != 0:
            raise CommandFailed(
                f"failed with status {ended.returncode}: {_line(command, {})}\n{ended.stdout.rstrip()}"
            )
        return ended.stdout

    def run_on_board(self, *command: str | Path) -> None:
        """Runs a command that needs a board, with this terminal; in a dry run it is only printed.

        Raises:
            CommandFailed: it is not installed, or its status is not 0.
        """
        self._print(command, {})
        if self.dry_run:
            return
        try:
            status = subprocess.run([str(word) for word in command], cwd=ROOT).returncode
        except OSError as error:
            raise CommandFailed(f"{command[0]} cannot be run: {error.strerror}") from error
        if status != 0:
            raise CommandFailed(f"failed with status {status}: {_line(command, {})}")

    @staticmethod
    def _print(command: tuple[str | Path, ...], environment: Mapping[str, str]) -> None:
        print(f"$ {_line(command, environment)}", flush=True)


def _line(command: tuple[str | Path, ...], environment: Mapping[str, str]) -> str:
    """The command for a shell in the repository's top folder."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    words = (in_repository(word) if isinstance(word, Path) else word for word in command)
    return " ".join([*settings, *(shlex.quote(str(word)) for word in words)])


def in_repository(path: Path) -> Path:
    """The path as seen from the repository's top folder, if it is there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
