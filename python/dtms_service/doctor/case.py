"""What `dtms doctor` was asked to look at, and what its earlier checks have learned for the later ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtms_service.credentials import CREDENTIALS_FOLDER, Role, token_path

if TYPE_CHECKING:
    from dtms_service.config import Config


@dataclass(slots=True)
class Case:
    """The first fields are the options of the command, None where they were not given.

    ``package`` is the module with the functions of MetaTrader5, ``out`` a gateway's folder, ``deadline_s`` how long the
    terminal may take in all. ``config`` and ``listening`` are filled in by the checks that find them out.
    """

    config_file: Path | None = None
    data_dir: Path | None = None
    paper: bool = False
    service: str | None = None
    token_file: Path | None = None
    root_certificates: Path | None = None
    role: Role | None = None
    account: str | None = None
    terminal: str | None = None
    package: str | None = None
    symbols: tuple[str, ...] = ()
    offset_s: int | None = None
    out: Path | None = None
    deadline_s: float = 60.0

    config: Config | None = None
    listening: bool = False

    @property
    def wants_terminal(self) -> bool:
        return bool(self.account or self.terminal or self.package or self.symbols)

    @property
    def directory(self) -> Path | None:
        """The service's data directory, if it is on this machine."""
        return self.config.data_dir if self.config is not None else self.data_dir

    @property
    def address(self) -> str | None:
        """host:port of the service: as given, else as configured."""
        if self.service is not None or self.config is None:
            return self.service
        server = self.config.server
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"{host}:{server.port}"

    @property
    def token(self) -> Path | None:
        """The token to ask the service with: the one given, else the viewer's of the data directory, if it is there."""
        if self.token_file is not None or self.directory is None:
            return self.token_file
        viewer = token_path(self.directory / CREDENTIALS_FOLDER, "viewer")
        return viewer if viewer.exists() else None

    @property
    def wanted_role(self) -> Role | None:
        """What the token given is wanted for: as said, else a gateway's where a terminal is looked at."""
        if self.role is None and self.wants_terminal and self.token_file is not None:
            return Role.GATEWAY
        return self.role
