"""What a run leaves for people: `summary.json` and one self-contained HTML page.

>>> summary = summarise(events, results, run)
>>> write_report(out_dir, events, bars, results, run)
"""

from dtms.v1.event_pb2 import Event
from dtms_service.report.inputs import Bar, BrokerWrite, ReportInputInvalid, Run, TradeResult, read_bars, read_results
from dtms_service.report.page import write_report
from dtms_service.report.summary import Summary, summarise

__all__ = [
    "Bar",
    "BrokerWrite",
    "Event",
    "ReportInputInvalid",
    "Run",
    "Summary",
    "TradeResult",
    "read_bars",
    "read_results",
    "summarise",
    "write_report",
]
