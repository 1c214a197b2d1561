"""D36: the old system's package shadowed its module, and seven programs registered nothing. Imports are tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dtms_client
import dtms_service
from tests.house_sources import inside, sources

# Takes modules in an order in which each comes before those that import it: at its turn nothing that could lean on
# having been loaded first is there. What is loaded before its turn was so by its own package, as it would be alone.
IN_TURN = """
import importlib, json, sys, traceback
early, failed = [], {}
for name in json.load(sys.stdin):
    package = name.rpartition(".")[0]
    if name in sys.modules and "." not in package and not hasattr(sys.modules[name], "__path__"):
        early.append(name)
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc()
json.dump([early, failed], sys.stdout)
"""


def root(package: object) -> Path:
    file = getattr(package, "__file__", None)
    assert isinstance(file, str)
    return Path(file).parent


ROOTS = [root(dtms_client), root(dtms_service), root(dtms_client).parent / "dtms"]


LAZY = {"dtms_client", "dtms_service", "dtms"}
"""Packages that load nothing by themselves."""


def module_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[str]:
    """Every module and package that the two distributions bring."""
    return sorted(module_of(path, folder) for folder in ROOTS for path in folder.rglob("*.py"))


def test_d36_every_public_name_is_importable() -> None:
    """`from dtms_client import NAME` works for each name of `__all__` in a fresh interpreter, and for no other."""
    names = ", ".join(dtms_client.__all__)
    assert {"Client", "AsyncClient", "auto_register", "register_trade", "OwnershipSession"} <= set(dtms_client.__all__)
    code = f"from dtms_client import {names}\nassert None not in ({names})\nfrom dtms_client import *"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    wrong = subprocess.run(
        [sys.executable, "-c", "from dtms_client import auto_register_dtms"], capture_output=True, check=False
    )
    assert b"ImportError" in wrong.stderr


def test_d36_no_package_shadows_a_module() -> None:
    """No folder with Python files has a module of its own name beside it, and no module is found twice."""
    shadowed = [
        path
        for folder in ROOTS
        for path in folder.rglob("*.py")
        if path.with_suffix("").is_dir() and any(path.with_suffix("").rglob("*.py"))
    ]
    assert shadowed == []
    assert len(modules()) == len(set(modules()))
    # A name that the package hands out must not hide a module of it.
    hidden = {f"dtms_client.{name}" for name in dtms_client.__all__} & set(modules())
    assert hidden == set()


def packages_of(name: str) -> list[str]:
    """The packages that a module lies in, the outermost one, which loads nothing, left out."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(2, len(parts))]


def from_elsewhere(graph: dict[str, set[str]], package: str) -> set[str]:
    """What is loaded with a package and lies outside of it."""
    seen, left = set[str](), [package]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += [other for other in graph[name] if inside(other, package)]
    return {other for name in seen for other in graph[name] if not inside(other, package)}


def in_turn(wanted: list[str]) -> list[str]:
    """The modules in an order in which each comes after those that it imports. CycleError where there is none."""
    known = set(wanted)
    graph: dict[str, set[str]] = {name: set() for name in wanted}
    for folder in ROOTS:
        for source in sources(folder):
            needs = graph[module_of(source.path, folder)]
            for _, name in source.imports():
                needs.update({name if name in known else name.rpartition(".")[0]} & known)
    # Whoever imports a module of a package begins with the package, and with what that needs from elsewhere.
    begins = {
        name: {other for package in packages_of(name) for other in from_elsewhere(graph, package)} for name in graph
    }
    for name, needs in graph.items():
        needs.update(begins[name])
        needs.difference_update({name, *LAZY})
    return list(TopologicalSorter(graph).static_order())


@pytest.mark.timeout(120)  # 180 modules and what they need: 5 s of work, on a machine that is busy with other things
def test_d36_every_module_imports_alone() -> None:
    """Each module of both distributions can be the first that a program imports: none leans on an order, none on a
    circle."""
    wanted = modules()
    assert {"dtms.v1.trade_pb2", "dtms_client.registration", "dtms_service.server"} <= set(wanted)
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_TURN],
        input=json.dumps(in_turn(wanted)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    early, failed = json.loads(finished.stdout)
    assert failed == {}, "\n".join(failed.values())
    assert early == []
