"""The strict first step of a trade request: the checks the C extension makes before anything is sent.

Prices and volumes must be ``float``, numbers ``int`` and not negative, texts at most 29 UTF-16 units; anything else is
:class:`InvalidArgument` with the extension's own wording. Unknown keys are ignored, as the extension ignores them.
"""

from __future__ import annotations

from collections.abc import Mapping

from dtms_service.broker.structs import TradeRequest

TEXT_LIMIT = 29  # UTF-16 units: the extension refuses a length, NUL included, of 31 or more
UNSIGNED_LIMIT = 2**64  # the extension reads integers as unsigned 64-bit

_FLOATS = frozenset({"volume", "price", "stoplimit", "sl", "tp"})
_TEXTS = frozenset({"symbol", "comment"})


class InvalidArgument(ValueError):
    """A field that the extension refuses; ``str()`` is the text of ``last_error()``."""

    def __init__(self, field: str) -> None:
        super().__init__(f'Invalid "{field}" argument')
        self.field = field


def text_fits(text: str) -> bool:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2 <= TEXT_LIMIT


def parse_request(fields: Mapping[str, object]) -> TradeRequest:
    """The request with every absent field zero or empty. Raises :class:`InvalidArgument`."""
    return TradeRequest(_field(name, fields) for name in TradeRequest.names())


def _field(name: str, fields: Mapping[str, object]) -> object:
    if name in _FLOATS:
        value = fields.get(name, 0.0)
        accepted = isinstance(value, float)
        plain: object = float(value) if isinstance(value, float) else None
    elif name in _TEXTS:
        value = fields.get(name, "")
        accepted = isinstance(value, str) and text_fits(value)
        plain = value
    else:
        value = fields.get(name, 0)
        accepted = isinstance(value, int) and 0 <= value < UNSIGNED_LIMIT
        plain = int(value) if isinstance(value, int) else None
    if not accepted:
        raise InvalidArgument(name)
    return plain
