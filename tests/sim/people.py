"""Those who act on the world besides the managers of the house: a strategy bot, an operator, hands at the broker."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from dtms.v1.action_pb2 import (
    ACTION_KIND_CLOSE,
    ACTION_KIND_PARTIAL_CLOSE,
    ACTION_KIND_STOP,
    ACTION_KIND_TARGET,
    PURPOSE_FLATTEN,
    PURPOSE_OTHER,
    PURPOSE_PARTIAL,
    PURPOSE_TRAIL,
    PURPOSE_WIDEN,
    Action,
)
from dtms.v1.event_pb2 import KILL_SCOPE_SYMBOL, TRADING_STATE_ACTIVE, TRADING_STATE_HALTED, TRADING_STATE_REDUCING
from dtms.v1.trade_pb2 import SIDE_BUY, TRADE_STATE_CLOSED, Trade
from dtms_client.errors import DtmsError
from dtms_service.broker.foreign import ForeignActor
from tests.sim.world import ACCOUNT, BOT, SYMBOLS, World

REPEATS: Final = 0.25  # of the bot's proposals are sent again, word for word
OTHERS: Final = 0.05  # are sent again with another body under the same key
STALE: Final = 0.1  # show the token before


async def bot(world: World) -> None:
    """Wants whatever comes to its mind, much of it impossible; repeats itself; shows old tokens."""
    chance, client = world._part(), world.client(BOT)
    while True:
        await asyncio.sleep(chance.uniform(0.5, 3.0))
        if not world.storming:
            continue
        try:
            trades = [trade async for trade in client.list_trades()]
            open_ones = [trade for trade in trades if trade.state != TRADE_STATE_CLOSED]
            if not open_ones:
                continue
            trade = chance.choice(open_ones)
            if chance.random() < 0.15:
                await client.acquire_ownership(trade.ticket, account_id=ACCOUNT)
                continue
            action = wish(world, trade, chance)
            epoch = trade.owner_epoch - (chance.random() < STALE and trade.owner_epoch > 1)
            request_id = f"bot-{world.seed}-{chance.getrandbits(40):x}"

            async def ask(
                wanted: Action, request_id: str = request_id, epoch: int = epoch, trade: Trade = trade
            ) -> None:
                await client.propose(
                    request_id=request_id,
                    account_id=ACCOUNT,
                    ticket=trade.ticket,
                    owner_epoch=epoch,
                    action=wanted,
                )

            again = chance.random()
            await attempt(ask(action))
            if again < REPEATS:
                await attempt(ask(action))
            elif again < REPEATS + OTHERS:
                await attempt(ask(Action(kind=ACTION_KIND_TARGET, purpose=PURPOSE_OTHER, target=1.0)))
        except DtmsError:
            await asyncio.sleep(0.5)


async def attempt(ask: object) -> None:
    """An answer of whatever kind; what it was the wire has noted."""
    try:
        await ask  # type: ignore[misc]
    except DtmsError:
        return


def wish(world: World, trade: Trade, chance: Random) -> Action:
    """Something to want of a trade: sensible, impossible or forbidden."""
    sign = 1 if trade.side == SIDE_BUY else -1
    price, here = world.bid(trade.symbol), trade.confirmed.sl
    match chance.randrange(8):
        case 0 | 1:
            return _stop(round(price - sign * chance.uniform(0.0004, 0.002), 5))
        case 2:
            return _stop(round(price + sign * chance.uniform(-0.0002, 0.001), 5))
        case 3:
            return _stop(round((here or price) - sign * chance.uniform(0.0001, 0.002), 5))
        case 4:
            wide = round((here or price) - sign * chance.uniform(0.0001, 0.001), 5)
            return Action(kind=ACTION_KIND_STOP, purpose=PURPOSE_WIDEN, stop=wide, allow_loosen=True)
        case 5:
            far = round(price + sign * chance.uniform(0.001, 0.01), 5)
            return Action(kind=ACTION_KIND_TARGET, purpose=PURPOSE_OTHER, target=far)
        case 6:
            part = max(round(trade.volume * chance.uniform(0.1, 0.9), 2), 0.01)
            return Action(kind=ACTION_KIND_PARTIAL_CLOSE, purpose=PURPOSE_PARTIAL, volume=part)
        case _:
            if chance.random() < 0.2:
                return Action(kind=ACTION_KIND_CLOSE, purpose=PURPOSE_FLATTEN)
            return _stop(round(price - sign * 0.0008, 5))


def _stop(price: float) -> Action:
    return Action(kind=ACTION_KIND_STOP, purpose=PURPOSE_TRAIL, stop=price)


async def operator(world: World) -> None:
    """Halts, reduces, kills a symbol and lets go again, raises a budget."""
    chance, client = world._part(), world.client("operator")
    while True:
        await asyncio.sleep(chance.uniform(8.0, 25.0))
        try:
            if not world.storming:
                await client.set_trading_state(TRADING_STATE_ACTIVE, reason="calm")
                for symbol in SYMBOLS:
                    await client.set_kill_switch(KILL_SCOPE_SYMBOL, symbol, engaged=False, reason="calm")
                continue
            match chance.randrange(4):
                case 0:
                    state = chance.choice((TRADING_STATE_ACTIVE, TRADING_STATE_HALTED, TRADING_STATE_REDUCING))
                    await client.set_trading_state(state, reason="an exercise")
                case 1:
                    engaged = chance.random() < 0.5
                    symbol = chance.choice(SYMBOLS)
                    await client.set_kill_switch(KILL_SCOPE_SYMBOL, symbol, engaged=engaged, reason="an exercise")
                case 2:
                    trades = [trade async for trade in client.list_trades()]
                    if trades:
                        ticket = chance.choice(trades).ticket
                        await client.set_risk_budget(ticket, 1.5, account_id=ACCOUNT, reason="an exercise")
                case _:
                    await client.set_trading_state(TRADING_STATE_ACTIVE, reason="an exercise")
        except DtmsError:
            await asyncio.sleep(1.0)


def by_hand(world: World, chance: Random) -> None:
    """Fault 15: somebody moves a stop, closes, or takes a part, straight at the broker."""
    tickets = sorted(world.broker.book.positions)
    if not tickets or not world.market_open:
        return
    held = world.broker.position(chance.choice(tickets))
    assert held is not None
    hand = ForeignActor(world.broker)
    sign = 1 if held.side.value == SIDE_BUY else -1
    price = world.bid(held.symbol)
    match chance.randrange(5):
        case 0:
            hand.close(held.ticket, held.volume)
        case 1:
            hand.close(held.ticket, max(round(held.volume / 2, 2), 0.01))
        case 2:
            hand.modify(held.ticket, 0.0, held.tp or 0.0)
        case 3:
            hand.modify(held.ticket, held.sl or 0.0, round(price + sign * chance.uniform(0.002, 0.01), 5))
        case _:
            hand.modify(held.ticket, round(price - sign * chance.uniform(0.0005, 0.005), 5), held.tp or 0.0)
