"""Sources of the house as the checks of test_house.py read them: places, layers, imports."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

REPO = Path(__file__).resolve().parents[1]
SERVICE = REPO / "python" / "dtms_service"
CLIENTS = REPO / "clients" / "python"
CORE = REPO / "dtms_rs" / "core"
PROTO = REPO / "proto" / "dtms" / "v1"
STUBS = CLIENTS / "dtms" / "v1"

# Layer of each module or package directly below dtms_service. Arrows point down only.
LAYERS = MappingProxyType(
    {
        unit: layer
        for layer, units in {
            1: "_core",
            2: "bar_store bars bookmark broker clock config config_changes credentials errors event_log fault_disk "
            "fault_points history journal latency news quotes stage symbols",
            3: "convert describe gateway_messages status",
            4: "audit backup desk doors executor gateway_door gateway_inbox gateways lockstep lockstep_run monitor "
            "news_watch notify paper_account recovery reload shadow system",
            5: "interceptors servicers",
            6: "__main__ certificates server cli doctor gateway demo live_table logs replay report service settings "
            "supervisor",
        }.items()
        for unit in units.split()
    }
)


@dataclass(frozen=True)
class Source:
    """One Python file: its place, its tree and what it imports."""

    path: Path
    tree: ast.Module

    @property
    def place(self) -> str:
        return str(self.path.relative_to(REPO))

    @property
    def unit(self) -> str:
        """The module or package of dtms_service that the file belongs to; empty for the package file itself."""
        first = self.path.relative_to(SERVICE).parts[0].removesuffix(".py")
        return "" if first == "__init__" else first

    def imports(self) -> Iterator[tuple[int, str]]:
        """Every imported name with its line, dotted; `from a import b` gives `a.b`, for b may be a module."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def units(self) -> Iterator[tuple[int, str]]:
        """The modules of dtms_service that the file imports."""
        for line, name in self.imports():
            if inside(name, "dtms_service") and name != "dtms_service":
                yield line, name.split(".")[1]


def inside(name: str, package: str) -> bool:
    """True when the dotted name is the package or lies below it."""
    return name == package or name.startswith(f"{package}.")


@cache
def sources(folder: Path) -> tuple[Source, ...]:
    """Every hand-written Python file below the folder."""
    files = (path for path in sorted(folder.rglob("*.py")) if STUBS not in path.parents)
    return tuple(Source(path, ast.parse(path.read_text(encoding="utf-8"), str(path))) for path in files)


def service(*layers: int) -> Iterator[Source]:
    """The files of the service in these layers."""
    return (source for source in sources(SERVICE) if LAYERS.get(source.unit) in layers)


def report(breaches: Iterable[str]) -> None:
    """Fail with every breach, not only the first."""
    listed = sorted(breaches)
    assert not listed, "\n" + "\n".join(listed)
