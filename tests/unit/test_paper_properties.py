"""Any sequence of ticks and requests leaves the paper account in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dtms_service.broker.door import ClosingDeal, Side
from dtms_service.broker.mt5_enums import DealType, SwapMode
from dtms_service.broker.paper_config import Slippage, SlippageModel
from tests.unit.paper_world import SPEC, World

prices = st.integers(min_value=-400, max_value=400).map(lambda points: round(1.1 + points * SPEC.point, 5))
levels = st.one_of(st.just(0.0), prices, st.sampled_from([-1.0, 5.0, 1e-6, float("nan")]))
volumes = st.one_of(
    st.integers(min_value=1, max_value=400).map(lambda steps: steps * 0.01), st.sampled_from([0.005, 0.0, 99.0, -1.0])
)
picks = st.integers(min_value=0, max_value=5)
actions = st.one_of(
    st.tuples(st.just("tick"), prices, st.integers(min_value=0, max_value=60), st.integers(0, 90_000_000)),
    st.tuples(st.just("deal"), st.integers(0, 1), volumes, levels, levels),
    st.tuples(st.just("close"), picks, volumes),
    st.tuples(st.just("sltp"), picks, levels, levels),
    st.tuples(st.just("by"), picks, picks),
    st.tuples(st.just("placed"), st.integers(min_value=1, max_value=5000)),
)
models = st.sampled_from(
    [Slippage(SlippageModel.NONE, 0), Slippage(SlippageModel.NEXT_TICK, 0), Slippage(SlippageModel.FIXED_POINTS, 5)]
)


def act(world: World, action: tuple[object, ...]) -> list[ClosingDeal]:
    """Do one action; tickets are picked among the open ones (or a wrong one)."""
    open_tickets = [p.ticket for p in world.broker.positions()]

    def ticket(pick: object) -> int:
        assert isinstance(pick, int)
        return open_tickets[pick] if pick < len(open_tickets) else 1

    match action:
        case ("tick", float(bid), int(spread), int(wait)):
            return world.tick(bid, round(bid + spread * SPEC.point, 5), after_ms=wait)
        case ("deal", int(kind), float(volume), float(sl), float(tp)):
            world.deal(kind, volume, sl=sl, tp=tp)
        case ("close", pick, float(volume)):
            side = next((p.side for p in world.broker.positions() if p.ticket == ticket(pick)), Side.BUY)
            world.deal(1 if side is Side.BUY else 0, volume, position=ticket(pick))
        case ("sltp", pick, float(sl), float(tp)):
            before = {p.ticket: (p.sl, p.tp) for p in world.broker.positions()}
            if world.sltp(ticket(pick), sl, tp).retcode == 10009:
                stops_are_on_their_side(world, before)
        case ("by", pick, other):
            world.send(action=10, symbol="EURUSD", position=ticket(pick), position_by=ticket(other))
        case ("placed", int(delay)):
            world.broker.faults.place(delay)
        case _:
            raise AssertionError(f"no such action: {action}")
    return []


def stops_are_on_their_side(world: World, before: dict[int, tuple[float | None, float | None]]) -> None:
    """Every level that was just set lies on its side of the closing price."""
    market = world.broker.market("EURUSD")
    for position in world.broker.positions():
        sl, tp = before[position.ticket]
        price, sign = (market.bid, 1) if position.side is Side.BUY else (market.ask, -1)
        if position.sl is not None and position.sl != sl:
            assert (price - position.sl) * sign > 0
        if position.tp is not None and position.tp != tp:
            assert (position.tp - price) * sign > 0


def books_are_in_order(world: World) -> None:
    broker = world.broker
    ledger = broker.book.ledger
    assert ledger.balance_minor == sum(deal.total_minor for deal in ledger.deals)
    assert [d.ticket for d in ledger.deals] == [world.config.first_deal + i for i in range(len(ledger.deals))]
    held = {p.ticket: p for p in broker.positions()}
    for position in held.values():
        steps = position.volume / SPEC.volume_step
        assert abs(steps - round(steps)) < 1e-7
        assert position.volume >= SPEC.volume_min
    net = sum(p.volume if p.side is Side.BUY else -p.volume for p in held.values())
    dealt = sum(d.volume if d.type is DealType.BUY else -d.volume for d in ledger.deals if d.type != DealType.BALANCE)
    assert abs(net - dealt) < 1e-7
    market = broker.market("EURUSD")
    book = broker.book
    assert book.margin_minor() == ledger.minor(book.valuation.margin(market, market.long, market.short))
    longs = [p for p in book.positions.values() if p.side is Side.BUY]
    assert market.long.steps == sum(p.steps for p in longs)
    assert abs(market.long.value - sum(p.steps * p.price_open for p in longs)) < 1e-6
    assert book.equity_minor() == ledger.balance_minor + sum(map(book.result_minor, book.positions.values()))
    threshold = world.config.stop_out_percent * book.margin_minor() / 100
    assert book.below_stop_out() == (book.equity_minor() <= threshold)
    for live in broker.book.positions.values():
        reached = live.sl_points and (live.sl_points - market.close_points(live.side)) * live.sign >= 0
        assert not reached or live.exit is not None


@given(
    hedging=st.booleans(),
    slippage=models,
    swaps=st.sampled_from(SwapMode),
    script=st.lists(actions, max_size=60),
)
def test_no_sequence_breaks_the_books(
    *, hedging: bool, slippage: Slippage, swaps: SwapMode, script: list[tuple[object, ...]]
) -> None:
    """Volumes stay on the step, fresh stops on their side, no reached stop stays open, net volume is what the deals
    say, and the balance is the sum of the deals to the cent; two runs of a script are equal."""

    def run() -> World:
        world = World(
            config={"hedging": hedging, "slippage": slippage, "commission_per_lot_side": 3.5},
            spec={"stops_level": 0},
            trading={"swap_mode": swaps, "swap_long": -4.3, "swap_short": 1.7},
        )
        for action in script:
            act(world, action)
            books_are_in_order(world)
        return world

    first, second = run(), run()
    assert first.broker.book.ledger.deals == second.broker.book.ledger.deals
    assert first.broker.positions() == second.broker.positions()


@given(st.lists(st.integers(min_value=-300, max_value=300), min_size=1, max_size=40), st.integers(50, 200))
def test_mirrored_prices_give_mirrored_trades(path: list[int], distance: int) -> None:
    """With no spread, a long on a path and a short on the mirrored path leave the same money and reasons."""
    results = []
    for kind, sign in ((0, 1), (1, -1)):
        world = World(quoted=False)
        start = 110_000
        world.tick(start * SPEC.point, start * SPEC.point)
        world.deal(kind, 1.0, sl=(start - sign * distance) * SPEC.point, tp=(start + sign * distance) * SPEC.point)
        made = []
        for offset in path:
            price = (start + sign * offset) * SPEC.point
            made += world.tick(price, price)
        results.append([(d.reason, d.profit) for d in made])
    assert results[0] == results[1]
