"""The MetaTrader 5 terminal: package, pipe, link, switches, account, symbols, clock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from dtms_service.broker.mt5_enums import MarginMode
from dtms_service.broker.mt5_inferences import NO_LOGIN, same_terminal
from dtms_service.broker.retcodes import LastError
from dtms_service.doctor import server_clock, symbols
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok, skipped, warn
from dtms_service.doctor.sights import AccountSeen, Failed, Job, Sights, TerminalSeen
from dtms_service.doctor.terminal_process import sights_of
from dtms_service.doctor.terminals import terminals

OPEN_TIMEOUT_MS: Final = 30_000  # a terminal that has to start and log in takes 10 to 20 s
WATCH_S: Final = 3.0
PACKAGE: Final = "MetaTrader5"

SET_UP: Final = "docs/operations.md, A MetaTrader 5 terminal"
LOOKED_AT: Final = {
    "terminal.package": "the module with the functions of MetaTrader5",
    "terminal.open": "initialize(): the pipe to the terminal",
    "terminal.path": "terminal_info().path",
    "terminal.link": "terminal_info().connected",
    "terminal.autotrading": "terminal_info().trade_allowed: the AutoTrading button",
    "terminal.api": "terminal_info().tradeapi_disabled: an option of the terminal",
    "account.login": "account_info().login and server",
    "account.rights": "account_info().trade_allowed",
    "account.experts": "account_info().trade_expert",
    "account.hedging": "account_info().margin_mode and fifo_close",
    "symbols": "symbol_info() of each --symbol",
    "clock.server": "ticks that come against this machine's clock",
}
_STEP_OF: Final = {
    "load": "terminal.package",
    "open": "terminal.open",
    "terminal": "terminal.link",
    "account": "account.login",
    "symbols": "symbols",
    "ticks": "clock.server",
}

Look = Callable[[Job, float], Sights]


def examine(case: Case, look: Look = sights_of) -> Iterator[Finding]:
    wanted = terminals(case)
    if not wanted:
        why = "no --account, --terminal, --mt5-module or --symbol was given, and no gateway is configured"
        yield from (skipped(check, looked_at, why) for check, looked_at in LOOKED_AT.items())
    for one in wanted:
        job = Job(one.package or PACKAGE, one.terminal, one.symbols, OPEN_TIMEOUT_MS, WATCH_S)
        yield from (replace(found, about=one.account or "") for found in judge(one, look(job, one.deadline_s)))


def judge(case: Case, sights: Sights) -> Iterator[Finding]:
    """Every check once, in order: what was seen, what went wrong, or that it was not reached."""
    wrong = _ended(case, sights)
    for check in LOOKED_AT:
        if wrong is not None and wrong.check == check:
            yield wrong
            continue
        found = list(_seen(check, case, sights))
        why = "nothing to see" if wrong is None else f"not reached: {wrong.check}"
        yield from found or [skipped(check, LOOKED_AT[check], why)]


def _seen(check: str, case: Case, sights: Sights) -> Iterator[Finding]:
    match check:
        case "terminal.package" if "load" in sights.done:
            yield ok(check, LOOKED_AT[check], sights.package)
        case "terminal.open" if "open" in sights.done:
            yield ok(check, LOOKED_AT[check], "open")
        case "symbols" if "symbols" in sights.done:
            yield from symbols.judge(sights.symbols)
        case "clock.server" if sights.terminal is not None and not sights.terminal.connected:
            yield skipped(check, LOOKED_AT[check], "without its trade server a terminal has no new ticks")
        case "clock.server" if "ticks" in sights.done:
            watched = any(symbol.exists for symbol in sights.symbols)
            yield server_clock.judge(case, sights.ticks, watched=watched)
        case _ if check.startswith("terminal.") and sights.terminal is not None:
            yield from _terminal(check, case, sights.terminal)
        case _ if check.startswith("account.") and sights.account is not None:
            yield _account(check, case, sights.account)


def _terminal(check: str, case: Case, shown: TerminalSeen) -> Iterator[Finding]:
    at = LOOKED_AT[check]
    match check:
        case "terminal.path":
            if case.terminal is not None and not same_terminal(case.terminal, shown.path):
                yield fail(
                    check,
                    at,
                    f"{shown.path} answers, not {case.terminal}",
                    "close the other terminal, or start the one meant first; one gateway for each, with its --terminal",
                )
            else:
                yield ok(check, at, f"{shown.path or 'not told'}, build {shown.build}")
        case "terminal.link":
            yield (
                ok(check, at, "linked to its trade server")
                if shown.connected
                else fail(
                    check,
                    at,
                    "the terminal runs and has no connection to its trade server",
                    "look at its lower right corner; log in again (File, Login to Trade Account) at the right server; "
                    "check network and proxy (Tools, Options, Server)",
                )
            )
        case "terminal.autotrading":
            yield (
                ok(check, at, "on")
                if shown.trade_allowed
                else fail(
                    check,
                    at,
                    "algorithmic trading is switched off in the terminal: every order is refused with 10027",
                    "press the AutoTrading (Algo Trading) button: it is green then; allow it in Tools, Options, Expert "
                    "Advisors; there, do not let it be switched off when account or profile changes",
                )
            )
        case _:
            yield (
                fail(
                    check,
                    at,
                    "trading through the Python API is disabled: order_send answers None with -8",
                    "Tools, Options, Expert Advisors: clear 'Disable algorithmic trading via external Python API'",
                )
                if shown.tradeapi_disabled
                else ok(check, at, "the Python API may trade")
            )


def _account(check: str, case: Case, shown: AccountSeen) -> Finding:
    at, name = LOOKED_AT[check], f"{shown.login}@{shown.server}"
    match check:
        case "account.login":
            if shown.login == NO_LOGIN:
                return _not_logged_in("account_info() shows no login")
            if case.account is not None and name != case.account:
                return fail(
                    check,
                    at,
                    f"the terminal is logged in to {name}, not {case.account}",
                    "log in to the account that is meant (File, Login to Trade Account; the server's name counts too), "
                    "or correct --account; where two accounts are traded, each needs a terminal of its own",
                )
            return ok(check, at, name)
        case "account.rights":
            return (
                ok(check, at, "may trade")
                if shown.trade_allowed
                else fail(
                    check,
                    at,
                    f"{name} may not trade: logged in with the investor (read-only) password, or closed by the "
                    "broker; orders are refused with 10017",
                    "log in with the master password; if it is that already, ask the broker",
                )
            )
        case "account.experts":
            return (
                ok(check, at, "programs may trade")
                if shown.trade_expert
                else fail(
                    check,
                    at,
                    f"the broker lets no program trade on {name}: orders are refused with 10026",
                    "ask the broker to allow automated trading on the account, or take an account that has it",
                )
            )
        case _:
            return _hedging(check, at, shown)


def _hedging(check: str, at: str, shown: AccountSeen) -> Finding:
    if shown.margin_mode != MarginMode.RETAIL_HEDGING:
        return warn(
            check,
            at,
            "a netting account: opposite positions do not stand side by side, so HEDGED reduces the position",
            "take a hedging account where that matters; DTMS works on this one, as docs/domain.md says",
        )
    if shown.fifo_close:
        return warn(
            check,
            at,
            "positions must be closed first in, first out: hedges may be refused (10046), closes too (10045)",
            "set engine.max_hedges to 0, one position a symbol, or take an account without the rule",
        )
    return ok(check, at, "a hedging account")


def _ended(case: Case, sights: Sights) -> Finding | None:
    """The finding about the step that did not end well."""
    if sights.hung_in is not None:
        check = _STEP_OF[sights.hung_in]
        return fail(
            check,
            LOOKED_AT[check],
            f"no answer within {case.deadline_s:g} s; the look was ended",
            "look at its window: a dialog (login, update, news) holds it up, or it hangs: end terminal64.exe "
            "in the task manager and start it again. A bridge on Linux: restart its server in Wine",
        )
    failure = sights.failed
    if failure is None:
        return None
    if failure.step == "load":
        return _not_loaded(case, failure)
    if failure.code == LastError.AUTH_FAILED:
        return _not_logged_in(f"{failure.code} {failure.text}")
    check = _STEP_OF[failure.step]
    return fail(check, LOOKED_AT[check], f"{failure.code or failure.kind} {failure.text}", _mend_of(case, failure))


def _not_logged_in(found: str) -> Finding:
    return fail(
        "account.login",
        LOOKED_AT["account.login"],
        f"the terminal is not logged in: {found}",
        "File, Login to Trade Account, with the master password, and let the terminal save it; or give it to the "
        "gateway with --password-file",
    )


def _not_loaded(case: Case, failure: Failed) -> Finding:
    check, package = "terminal.package", case.package or PACKAGE
    if failure.kind == "ModuleNotFoundError" and package.partition(":")[0] == PACKAGE and sys.platform != "win32":
        mend = (
            "the package is for Windows only: run the gateway there, or beside a terminal in Wine with a bridge that "
            f"has the same functions, named by --mt5-module (mt5linux:MetaTrader5); {SET_UP}"
        )
    elif failure.kind == "ModuleNotFoundError" and package == PACKAGE:
        mend = "install dtms-service with a 64-bit Python for Windows; it brings MetaTrader5"
    elif failure.kind == "ModuleNotFoundError":
        mend = f"install the module into this Python ({sys.executable}), or correct --mt5-module"
    elif failure.kind in {"ConnectionRefusedError", "TimeoutError", "EOFError", "OSError"}:
        mend = "start the bridge's server beside the terminal, and check its host and port"
    else:
        mend = f"see that {package} has the functions of MetaTrader5 and runs by itself; {SET_UP}"
    return fail(check, LOOKED_AT[check], f"{package} cannot be used: {failure.kind}: {failure.text}", mend)


def _mend_of(case: Case, failure: Failed) -> str:
    named = case.terminal is not None and sys.platform == "win32" and not Path(case.terminal).is_file()
    match failure.code:
        case LastError.INTERNAL_FAIL_INIT if named:
            return f"there is no file {case.terminal}: give the path of terminal64.exe as --terminal"
        case LastError.INTERNAL_FAIL_INIT:
            return (
                "install the terminal, start it once by hand, give its terminal64.exe as --terminal, and run it as the "
                "same user with the same rights (not one of the two as administrator)"
            )
        case LastError.INTERNAL_FAIL_TIMEOUT:
            return (
                "the terminal runs and does not answer: close its dialogs (login, update), let it finish its update, "
                "see that it and Python run with the same rights; then end terminal64.exe and start it again"
            )
        case LastError.INVALID_VERSION:
            return "update the terminal (Help, Check for Updates), or install the package's version that fits it"
        case LastError.NOT_FOUND:
            return "give the path of terminal64.exe as --terminal"
        case LastError.INTERNAL_FAIL_SEND | LastError.INTERNAL_FAIL_RECEIVE | LastError.INTERNAL_FAIL_CONNECT:
            return "the terminal ended while it was asked: start it again, and look into its journal (Toolbox, Journal)"
        case _:
            return "look into the terminal's journal (Toolbox, Journal) at this minute; restart the terminal"
