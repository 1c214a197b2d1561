"""What the trades of a run are registered with: whose they are."""

from __future__ import annotations

from collections.abc import Sequence

NONE, ALTERNATE = "none", "alternate"
STRATEGY_SYNTAX = (
    f"strategy type of the trades; several are taken in turn, each side on its own; {NONE}: DTMS's own trades; "
    f"{ALTERNATE}: {NONE} and each type of the Universal Manager in turn"
)


def rotation(names: Sequence[str], managed: Sequence[str]) -> tuple[str, ...]:
    """Strategy types in the order in which the trades of a side take them, round and round; empty means none.

    ``managed`` are the types of the Universal Manager, in the order of the configuration.
    """
    types: list[str] = []
    for name in names or (NONE,):
        match name:
            case "none" | "":
                types.append("")
            case "alternate":
                types += [each for strategy in managed for each in ("", strategy)]
            case _:
                types.append(name)
    return tuple(types)


def in_words(names: Sequence[str]) -> str:
    """For the report."""
    if not any(name not in {NONE, ""} for name in names):
        return "all trades are DTMS's"
    if list(names) == [ALTERNATE]:
        return "each side in turn DTMS's and of one of the Universal Manager's strategy types"
    return "strategy types, each side in turn: " + ", ".join(name or NONE for name in names)
