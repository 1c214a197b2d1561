"""The house itself: what the folders, layers and shared data promise in docs/architecture.md.

The checks read sources (ast, TOML, JSON), so they hold for code that no test runs. A new module needs a line in
`house_sources.LAYERS`; a new exception from a rule needs its reason beside it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from dtms_service.config import all_keys
from tests.house_sources import CLIENTS, CORE, LAYERS, PROTO, REPO, SERVICE, STUBS, inside, report, service, sources

RPC = ("grpc", "grpc_status", "grpc_health", "grpc_reflection")
WIRE = (*RPC, "dtms", "google.protobuf")
DOMAIN = frozenset({"_core", "journal", "event_log", "broker", "desk", "executor", "monitor", "recovery"})
# Where the wire and the domain may be seen together; the gateway packs what its broker says.
MEETING_POINTS = frozenset(
    {"convert", "gateway_messages", "status", "interceptors", "servicers", "server", "gateway", "gateway_door"}
)
# Keys that config.py itself turns into others.
RESOLVED = frozenset({"profile"})  # gives engine.fast_s and engine.slow_s
# Packages that a file imports where used, and tells by name when they are missing.
OPTIONAL = frozenset({"numpy"})
CLOCK_READS = frozenset(
    f"{module}.{name}"
    for module, names in {
        "time": ("time", "time_ns", "monotonic", "monotonic_ns", "localtime", "gmtime", "sleep"),
        "datetime": ("now", "utcnow", "today"),
        "date": ("today",),
    }.items()
    for name in names
)


# ---- layers -----------------------------------------------------------------------------------------------------


def test_every_module_of_the_service_has_a_layer() -> None:
    """No module of dtms_service stands outside of the layers."""
    units = {source.unit for source in sources(SERVICE)} - {""}
    report(f"{unit}: give it a layer in tests/house_sources.py (docs/architecture.md)" for unit in units - set(LAYERS))


def test_imports_point_down() -> None:
    """A module of the service imports only its own layer and lower ones."""
    report(
        f"{source.place}:{line}: {source.unit} (L{LAYERS[source.unit]}) imports {unit} (L{LAYERS[unit]})"
        for source in service(2, 3, 4, 5, 6)
        for line, unit in source.units()
        if unit in LAYERS and LAYERS[unit] > LAYERS[source.unit]
    )


def test_modules_of_one_layer_import_each_other_without_a_cycle() -> None:
    """The modules of the service can be put in one order in which each imports only earlier ones."""
    edges = {unit: set[str]() for unit in LAYERS}
    for source in sources(SERVICE):
        if source.unit in edges:
            edges[source.unit] |= {unit for _, unit in source.units() if unit in edges} - {source.unit}
    while free := [unit for unit, needs in edges.items() if not needs]:
        for unit in free:
            del edges[unit]
        for needs in edges.values():
            needs.difference_update(free)
    report(f"{unit} has no place in the order: it needs {', '.join(sorted(needs))}" for unit, needs in edges.items())


def test_storage_and_brokers_know_no_wire() -> None:
    """L2 never imports grpc, protobuf or dtms.v1: the journal stores bytes."""
    report(
        f"{source.place}:{line}: imports {name}"
        for source in service(2)
        for line, name in source.imports()
        if any(inside(name, package) for package in WIRE)
    )


def test_the_desk_knows_no_rpc() -> None:
    """L4 decides and drives without grpc: the same code runs under a call, in recovery and in replay."""
    report(
        f"{source.place}:{line}: imports {name}"
        for source in service(4)
        for line, name in source.imports()
        if any(inside(name, package) for package in RPC)
    )


def test_wire_and_domain_meet_in_few_named_places() -> None:
    """Only convert, status, interceptors, servicers, server and gateway see dtms.v1 and the domain together."""
    report(
        f"{source.place}: imports dtms.v1 and {', '.join(sorted(domain))}"
        for source in sources(SERVICE)
        if source.unit not in MEETING_POINTS and any(inside(name, "dtms") for _, name in source.imports())
        if (domain := DOMAIN & {unit for _, unit in source.units()})
    )


def test_servicers_never_reach_into_the_core() -> None:
    """Servicers unpack, call the desk and pack: none imports dtms_service._core."""
    report(
        f"{source.place}:{line}: imports _core"
        for source in service(5)
        if source.unit == "servicers"
        for line, unit in source.units()
        if unit == "_core"
    )


def test_the_client_knows_nothing_of_the_service() -> None:
    """No file of the client distribution imports dtms_service: managers cannot decide on their own."""
    report(
        f"{source.place}:{line}: imports {name}"
        for source in sources(CLIENTS / "dtms_client")
        for line, name in source.imports()
        if inside(name, "dtms_service")
    )


def test_only_the_gateway_loads_the_terminal() -> None:
    """MetaTrader5 holds the GIL through blocking calls, so only the gateway process imports it."""
    report(
        f"{source.place}:{line}: imports {name}"
        for source in (*sources(SERVICE), *sources(CLIENTS / "dtms_client"))
        for line, name in source.imports()
        if inside(name, "MetaTrader5") and (SERVICE not in source.path.parents or source.unit != "gateway")
    )


def normal(name: str) -> str:
    """Name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(project: Path) -> set[str]:
    """Distributions that a project declares, with those they bring as part of their interface."""
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in table["dependencies"]}
    if "grpcio-status" in names:
        names.add("googleapis-common-protos")  # google.rpc, which grpcio-status speaks
    if "pydantic-settings" in names:
        names.add("pydantic")
    if "dtms-client" in names:
        names |= declared(CLIENTS)
    return {*names, table["name"]}


@pytest.mark.parametrize(
    ("folder", "project"),
    [(SERVICE, REPO), (CLIENTS / "dtms_client", CLIENTS)],
    ids=["dtms-service", "dtms-client"],
)
def test_a_distribution_imports_only_what_it_declares(folder: Path, project: Path) -> None:
    """Whoever installs one distribution alone can import every file of it."""
    providers = importlib.metadata.packages_distributions()
    allowed = declared(project)

    def is_declared(top: str) -> bool:
        known = {normal(name) for name in (*providers.get(top, ()), top)}
        return top in sys.stdlib_module_names or top in OPTIONAL or bool(known & allowed)

    own = {"dtms_service", "dtms_client", "dtms"} if project == REPO else {"dtms_client", "dtms"}
    where = (project / "pyproject.toml").relative_to(REPO)
    report(
        f"{source.place}:{line}: imports {name}, which {where} does not declare"
        for source in sources(folder)
        for line, name in source.imports()
        if name.split(".")[0] not in own and not is_declared(name.split(".")[0])
    )


# ---- time and errors --------------------------------------------------------------------------------------------


def test_time_is_an_argument_below_the_server() -> None:
    """L2 to L5 read no clock and do not sleep, save clock.py: the same input gives the same journal."""
    report(
        f"{source.place}:{node.lineno}: calls {called}"
        for source in service(2, 3, 4, 5)
        if source.unit != "clock"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        if (called := ".".join(ast.unparse(node.func).split(".")[-2:])) in CLOCK_READS
    )


def test_clock_functions_are_called_by_their_full_name() -> None:
    """No file of the service imports a clock function bare, where the check above would not see it."""
    report(
        f"{source.place}:{line}: imports {name}; write the module's name at the call"
        for source in service(2, 3, 4, 5)
        if source.unit != "clock"
        for line, name in source.imports()
        if ".".join(name.split(".")[-2:]) in CLOCK_READS
    )


def catches(handler: ast.ExceptHandler, names: frozenset[str]) -> bool:
    """True when the handler names one of the exceptions (None stands for a bare except)."""
    if handler.type is None:
        return "" in names
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind).split(".")[-1] in names for kind in kinds)


def passes_on(handler: ast.ExceptHandler) -> bool:
    """True when the handler raises, or hands the exception it caught to somebody."""
    body = [node for statement in handler.body for node in ast.walk(statement)]
    given = (
        argument
        for node in body
        if isinstance(node, ast.Call) and "log" not in ast.unparse(node.func).lower()
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
    )
    uses = any(
        isinstance(name, ast.Name) and name.id == handler.name for argument in given for name in ast.walk(argument)
    )
    return uses or any(isinstance(node, ast.Raise) for node in body)


@pytest.mark.parametrize("folder", [SERVICE, CLIENTS / "dtms_client"], ids=["dtms-service", "dtms-client"])
def test_no_broad_handler_swallows(folder: Path) -> None:
    """Whoever catches everything raises again or hands the exception on; logging alone loses it."""
    broad = frozenset({"", "Exception", "BaseException"})
    report(
        f"{source.place}:{node.lineno}: swallows"
        for source in sources(folder)
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.ExceptHandler) and catches(node, broad) and not passes_on(node))
        or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] == "suppress"
            and any(ast.unparse(kind) in broad for kind in node.args)
        )
    )


def test_rpc_handlers_let_cancellation_through() -> None:
    """L5 re-raises CancelledError: a swallowed one leaks the stream in grpc.aio (docs: grpc/grpc#43360)."""
    report(
        f"{source.place}:{node.lineno}: catches CancelledError and does not raise it again"
        for source in service(5)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and catches(node, frozenset({"CancelledError", "BaseException", ""}))
        if not any(isinstance(inner, ast.Raise) for statement in node.body for inner in ast.walk(statement))
    )


# ---- the core ---------------------------------------------------------------------------------------------------


def test_the_core_has_no_dependency() -> None:
    """dtms-core builds from std alone."""
    manifest = tomllib.loads((CORE / "Cargo.toml").read_text(encoding="utf-8"))
    kinds = {"dependencies": manifest.get("dependencies"), "build-dependencies": manifest.get("build-dependencies")}
    kinds |= {f"target.{name}": table.get("dependencies") for name, table in manifest.get("target", {}).items()}
    report(f"dtms_rs/core/Cargo.toml [{kind}]: {', '.join(names)}" for kind, names in kinds.items() if names)


def test_the_core_touches_nothing_outside() -> None:
    """dtms-core has no clock, no I/O, no threads, no environment, no log and no unsafe code."""
    outside = re.compile(r"\bstd::(time|fs|net|env|io|process|thread)\b|\b(e?print(ln)?|dbg)!|\bunsafe\b|\brand::")
    report(
        f"{path.relative_to(REPO)}:{number}: {found.group()}"
        for path in (CORE / "src").rglob("*.rs")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (found := outside.search(line.partition("//")[0]))
    )


def test_the_core_forbids_unsafe_code() -> None:
    """The compiler itself refuses unsafe code in dtms-core."""
    manifest = tomllib.loads((CORE / "Cargo.toml").read_text(encoding="utf-8"))
    assert manifest["lints"]["rust"]["unsafe_code"] == "forbid"


# ---- generated files and shared data ----------------------------------------------------------------------------


def test_the_stubs_are_those_of_the_proto_files_and_say_so() -> None:
    """Each proto file has its four generated files, marked as such, and no other file claims to be one."""
    endings = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    wanted = {f"{path.stem}{ending}" for path in PROTO.glob("*.proto") for ending in endings}
    present = {path.name for path in STUBS.iterdir() if "_pb2" in path.name and path.is_file()}
    breaches = [f"{name}: missing, run make proto" for name in wanted - present]
    breaches += [f"{name}: no proto file makes it" for name in present - wanted]
    breaches += [
        f"{name}: lost its mark as a generated file; run make proto"
        for name in present
        if not re.search(r"@generated|Generated by", (STUBS / name).read_text(encoding="utf-8")[:400])
    ]
    assert wanted, f"no proto files in {PROTO}"
    report(breaches)


@pytest.mark.parametrize("name", ["service_config.json", "timeouts.json"])
def test_the_client_ships_the_call_data_of_the_protocol(name: str) -> None:
    """Retry policies and timeouts have one source, proto/dtms/v1; the client's copy equals it."""
    assert (CLIENTS / "dtms_client" / name).read_bytes() == (PROTO / name).read_bytes(), "run make proto"


def rpcs() -> dict[str, bool]:
    """Every `package.Service/Method`, with True for those that stream in either direction."""
    found: dict[str, bool] = {}
    for path in PROTO.glob("*.proto"):
        service_name = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if opened := re.match(r"service (\w+)", line):
                service_name = opened.group(1)
            elif method := re.match(r"\s+rpc (\w+)", line):
                found[f"dtms.v1.{service_name}/{method.group(1)}"] = "(stream " in line
    return found


def test_every_unary_method_has_a_timeout_and_no_stream_has_one() -> None:
    """timeouts.json names exactly the unary methods; streams live on keepalive."""
    timeouts = json.loads((PROTO / "timeouts.json").read_text(encoding="utf-8"))["methods"]
    unary = {name for name, streams in rpcs().items() if not streams}
    report(
        [f"{name}: no timeout" for name in unary - set(timeouts)]
        + [f"{name}: no unary method" for name in set(timeouts) - unary]
    )
    assert all(seconds > 0 for seconds in timeouts.values())


def test_the_service_config_retries_only_what_exists_and_sets_no_timeout() -> None:
    """Retry policies name real methods, repeat only UNAVAILABLE, and leave deadlines to the call."""
    known = rpcs()
    services = {name.split("/")[0] for name in known}
    breaches: list[str] = []
    for policy in json.loads((PROTO / "service_config.json").read_text(encoding="utf-8"))["methodConfig"]:
        if "timeout" in policy:
            breaches.append(f"{policy['name']}: a timeout here fires early and is not sent")
        if "retryPolicy" in policy and policy["retryPolicy"]["retryableStatusCodes"] != ["UNAVAILABLE"]:
            breaches.append(f"{policy['name']}: retries more than UNAVAILABLE")
        for name in policy["name"]:
            target = f"{name['service']}/{name['method']}" if "method" in name else name["service"]
            if target not in known and target not in services:
                breaches.append(f"{target}: no such method or service")
    report(breaches)


# ---- configuration, documents, versions -------------------------------------------------------------------------


def test_every_configuration_key_has_a_reader() -> None:
    """A key that nobody reads promises what the service does not do: each is read outside of config.py."""
    read: set[str] = set()
    for source in sources(SERVICE):
        if source.unit == "config":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)
    # The engine section is handed to Rust as it is, by field name.
    for path in (REPO / "dtms_rs").glob("**/src/**/*.rs"):
        read |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    keys = list(all_keys())
    assert keys, "config.all_keys() names no key"
    report(f"{key}: nothing reads it" for key in keys if key.split(".")[-1] not in read | RESOLVED)


def test_the_architecture_page_names_what_exists() -> None:
    """Each folder and file that docs/architecture.md writes as a path exists, and so does each proto file."""
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))
    roots = "|".join(re.escape(path.name) for path in REPO.iterdir() if path.name not in {".git", ".venv"})
    paths = set(re.findall(rf"(?<![\w./-])((?:{roots})/[\w./-]*)", code))
    protos = set(re.findall(r"(?<![\w*])(\w+\.proto)\b", code))
    assert paths, "docs/architecture.md names no folder"
    report(
        [f"{path}: named, but does not exist" for path in paths if not (REPO / path.rstrip(".,")).exists()]
        + [f"{name}: named, but not in proto/dtms/v1" for name in protos if not (PROTO / name).is_file()]
    )


def test_every_old_defect_has_its_test() -> None:
    """docs/legacy-defects.md lists 46; each that issue 3 or 4 names has a test that bears its number."""
    page = (REPO / "docs" / "legacy-defects.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| D(\d+) \|.*\| ([\d, -]+) \|$", page, flags=re.MULTILINE))
    assert sorted(map(int, rows)) == list(range(1, 47))
    named = set[int]()
    for folder, kind in ((REPO / "tests", "py"), (CLIENTS / "tests", "py"), (CORE / "tests", "rs")):
        for path in folder.rglob(f"*.{kind}"):
            named |= {int(n) for n in re.findall(r"(?:def test_|fn )d(\d\d)_", path.read_text(encoding="utf-8"))}
    report(
        f"D{number}: no test bears its number"
        for number, issue in rows.items()
        if {"3", "4"} & set(issue.split(", ")) and int(number) not in named
    )


def test_one_version_for_the_whole_house() -> None:
    """Both distributions, the crates and the newest heading of the change log carry one version."""
    service_project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = service_project["version"]
    client = tomllib.loads((CLIENTS / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    crates = tomllib.loads((REPO / "dtms_rs" / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"][
        "version"
    ]
    assert (client, crates) == (version, version)
    assert f"dtms-client=={version}" in service_project["dependencies"]
    newest = re.search(r"^## (\S+)", (REPO / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == version


@pytest.mark.parametrize("folder", [REPO / "tests", CLIENTS / "tests"], ids=["tests", "clients/python/tests"])
def test_every_test_states_the_fact_it_proves(folder: Path) -> None:
    """Each test function has a docstring."""
    report(
        f"{source.place}:{node.lineno}: {node.name} has no docstring"
        for source in sources(folder)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and ast.get_docstring(node) is None
    )
