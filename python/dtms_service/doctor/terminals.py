"""Which terminals are looked at: the one that the options name, else those whose gateways are configured."""

from __future__ import annotations

from dataclasses import replace

from dtms_service.config import Config, GatewaySection
from dtms_service.doctor.case import Case
from dtms_service.supervisor import folder_of


def terminals(case: Case) -> list[Case]:
    """A case for each. What an option does not say of an account, its section of the configuration does."""
    config = case.config
    if config is None:
        return [case] if case.wants_terminal else []
    if not case.wants_terminal:
        return [_of(case, config, account_id, section) for account_id, section in config.gateways.items()]
    section = config.gateways.get(case.account or "")
    return [case if section is None else _of(case, config, case.account or "", section)]


def _of(case: Case, config: Config, account_id: str, section: GatewaySection) -> Case:
    return replace(
        case,
        account=account_id,
        terminal=case.terminal or section.terminal,
        package=case.package or section.package,
        symbols=case.symbols or section.symbols,
        offset_s=section.server_utc_offset_s if case.offset_s is None else case.offset_s,
        out=case.out or folder_of(config.data_dir, account_id),
    )
