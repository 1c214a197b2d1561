//! Accounts, symbols, trades: what is accepted, what is refused, what is kept.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::engine::Engine;
use dtms_core::enums::{CloseReason, Origin, RiskSource, TradeState};
use dtms_core::event::SymbolSpec;
use dtms_core::message::Text;
use dtms_core::symbol::{Points, Steps, Symbol};
use dtms_core::trade::{TradeRecord, Watch};
use engine_support::{
    ACCOUNT, CONFIG, MANAGED, PIVOT, Rig, SCALE, SYMBOL, Setup, TICKET, managers, names, refused,
    spec,
};

fn ready() -> Rig {
    let mut rig = Setup::default().rig();
    rig.tick(PIVOT);
    rig
}

/// Every field of a registration is checked, and the refusal names it.
#[test]
fn a_bad_registration_names_its_field() {
    type Case = (
        &'static str,
        u64,
        &'static str,
        Option<i64>,
        Option<i64>,
        f64,
    );
    let cases: [Case; 9] = [
        ("ticket", 0, "", Some(109_000), None, 1.0),
        ("volume", 1, "", None, None, 0.015),
        ("volume", 1, "", None, None, 0.0),
        ("volume", 1, "", None, None, f64::NAN),
        ("volume", 1, "", None, None, 100.01),
        ("sl", 1, "", Some(PIVOT + 1), None, 1.0),
        ("sl", 1, "", Some(PIVOT), None, 1.0),
        ("tp", 1, "", None, Some(PIVOT - 1), 1.0),
        (
            "strategy_type",
            1,
            "0123456789012345678901234567890123456789012345678901234567890123456789",
            None,
            None,
            1.0,
        ),
    ];
    for mirror in [false, true] {
        for (field, ticket, strategy, sl, tp, volume) in cases {
            let mut rig = Setup::mirrored(mirror).rig();
            let error = refused(rig.try_register(ticket, strategy, 0, sl, tp, volume));
            assert_eq!(
                (error.reason.as_str(), error.field.as_str()),
                ("FIELD_INVALID", field)
            );
            assert_eq!(rig.engine.trade_count(), 0);
        }
    }
}

/// The same registration again resets nothing and makes no event, whatever the trade has become (D38).
#[test]
fn registration_is_idempotent() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(TradeState::Hedged);
    let before = rig.engine.snapshot();
    assert!(rig.register().is_empty());
    assert_eq!(rig.engine.snapshot(), before);
    let error = refused(rig.try_register(TICKET, "", 1_000, Some(109_001), Some(113_000), 1.0));
    assert_eq!(error.reason.as_str(), "TRADE_DIFFERS");
}

/// A managed strategy belongs to Universal, anything else to DTMS.
#[test]
fn the_first_owner_follows_the_strategy() {
    for (strategy, owner) in [
        (MANAGED, engine_support::UNIVERSAL),
        ("", "dtms_manager"),
        ("scalp", "dtms_manager"),
    ] {
        let mut rig = ready();
        let events = rig.register_as(strategy, 0, Some(109_000), None, 1.0);
        assert_eq!(names(&events), ["TradeRegistered", "OwnershipGranted"]);
        assert_eq!(rig.trade().managed_by.as_str(), owner);
        assert_eq!(
            (rig.trade().risk_source, rig.trade().risk_distance),
            (RiskSource::Stop, Some(1_000.0 / SCALE))
        );
    }
}

/// Unknown accounts and symbols are named as such.
#[test]
fn unknown_accounts_and_symbols() {
    let mut rig = ready();
    let now_ns = rig.now_ns();
    let unknown = rig
        .engine
        .on_tick("8@paper", SYMBOL, 0, 1.0, 1.0, 1.0, now_ns);
    assert_eq!(refused(unknown).reason.as_str(), "ACCOUNT_UNKNOWN");
    let unknown = rig
        .engine
        .on_tick(ACCOUNT, "GOLD", 0, 1.0, 1.0, 1.0, now_ns);
    assert_eq!(refused(unknown).reason.as_str(), "SYMBOL_UNKNOWN");
    assert_eq!(
        refused(rig.engine.define_symbol("8@paper", spec(), now_ns))
            .reason
            .as_str(),
        "ACCOUNT_UNKNOWN"
    );
}

/// A price that is no price is refused by name and changes nothing; an older tick changes nothing.
#[test]
fn bad_ticks_change_nothing() {
    let mut rig = ready();
    let good = 110_000.0 / SCALE;
    for (field, bid, ask, volume) in [
        ("bid", f64::NAN, good, 1.0),
        ("bid", 0.0, good, 1.0),
        ("ask", good, f64::INFINITY, 1.0),
        ("ask", good, -good, 1.0),
        ("ask", good, good - 1.0 / SCALE, 1.0),
        ("volume", good, good, f64::NAN),
        ("volume", good, good, -1.0),
    ] {
        let (now_ns, time_msc) = (rig.now_ns(), rig.now_s * 1_000);
        let error = refused(
            rig.engine
                .on_tick(ACCOUNT, SYMBOL, time_msc, bid, ask, volume, now_ns),
        );
        assert_eq!(
            (error.reason.as_str(), error.field.as_str()),
            ("FIELD_INVALID", field)
        );
    }
    let now_ns = rig.now_ns();
    rig.engine
        .on_tick(ACCOUNT, SYMBOL, 1, 2.0 * good, 2.0 * good, 1.0, now_ns)
        .unwrap();
    assert_eq!(
        rig.engine
            .quote(ACCOUNT, SYMBOL)
            .unwrap()
            .unwrap()
            .bid
            .to_bits(),
        good.to_bits()
    );
}

/// A symbol's rules may change, its units may not while trades are counted in them.
#[test]
fn units_are_fixed_while_trades_exist() {
    let mut rig = ready();
    let now_ns = rig.now_ns();
    let same = rig.engine.define_symbol(ACCOUNT, spec(), now_ns);
    assert!(rig.take(same).unwrap().0.is_empty());
    rig.register();
    let mut wider = spec();
    wider.stops_level = 50;
    let step = rig.engine.define_symbol(ACCOUNT, wider, now_ns);
    assert_eq!(names(&rig.take(step).unwrap().0), ["SymbolDefined"]);
    let mut finer = spec();
    finer.point /= 2.0;
    finer.tick_size /= 2.0;
    assert_eq!(
        refused(rig.engine.define_symbol(ACCOUNT, finer, now_ns)).field,
        "point"
    );
    rig.check_fold();
}

/// Rules that contradict themselves are refused by name.
#[test]
fn bad_symbol_rules_name_their_field() {
    type Spoil = fn(&mut SymbolSpec);
    let cases: [(&str, Spoil); 9] = [
        ("symbol", |spec| spec.symbol = Text::from("")),
        ("digits", |spec| spec.digits = 11),
        ("point", |spec| spec.point = 0.0),
        ("tick_size", |spec| spec.tick_size = 1.5 / SCALE),
        ("contract_size", |spec| spec.contract_size = f64::NAN),
        ("volume_min", |spec| spec.volume_min = 0.015),
        ("volume_max", |spec| spec.volume_max = 0.001 * 0.5),
        ("stops_level", |spec| spec.stops_level = -1),
        ("vwap_slope_threshold", |spec| {
            spec.vwap_slope_threshold = -0.1;
        }),
    ];
    for (field, spoil) in cases {
        let mut rules = spec();
        spoil(&mut rules);
        assert_eq!(Symbol::try_new(rules).unwrap_err().field, field);
    }
}

/// A trade may be unregistered when nothing of it is left to settle; the others keep their order and places.
#[test]
fn unregistering_keeps_the_others() {
    let mut rig = ready();
    for ticket in 1..=5 {
        rig.try_register(ticket, "", 0, Some(109_000), None, 1.0)
            .unwrap();
    }
    let step = rig.engine.unregister(ACCOUNT, 2, "test", rig.now_ns());
    assert_eq!(names(&rig.take(step).unwrap().0), ["TradeUnregistered"]);
    let tickets: Vec<u64> = rig
        .engine
        .keys(false)
        .into_iter()
        .map(|(_, ticket)| ticket)
        .collect();
    assert_eq!(tickets, [1, 3, 4, 5]);
    for ticket in [1, 3, 4, 5] {
        assert_eq!(
            rig.engine.trade(ACCOUNT, ticket).unwrap().unwrap().ticket,
            ticket
        );
        assert_eq!(rig.engine.position_owner(ACCOUNT, ticket), Some(ticket));
    }
    assert_eq!(rig.engine.position_owner(ACCOUNT, 2), None);
    rig.check_fold();

    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(TradeState::Hedged);
    assert_eq!(
        refused(rig.engine.unregister(ACCOUNT, TICKET, "test", 1)).field,
        "ticket"
    );
    let hedge = rig.hedge();
    assert_eq!(rig.engine.position_owner(ACCOUNT, hedge), Some(TICKET));
    assert_eq!(
        rig.engine.open_positions(ACCOUNT).unwrap(),
        [(TICKET, TICKET), (TICKET, hedge)]
    );
    rig.closed(TICKET, CloseReason::StopLoss, 109_000);
    rig.settle();
    let step = rig.engine.unregister(ACCOUNT, TICKET, "test", rig.now_ns());
    rig.take(step).unwrap();
    assert_eq!(rig.engine.trade_count(), 0);
}

/// A damaged snapshot is refused, byte by byte, and the engine stays as it was.
#[test]
fn a_damaged_snapshot_is_refused() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(TradeState::WarningL2);
    let snapshot = rig.engine.snapshot();
    let mut engine = Engine::try_new(&CONFIG, &managers(), &[MANAGED]).unwrap();
    for place in (0..snapshot.len()).step_by(7) {
        let mut damaged = snapshot.clone();
        damaged[place] ^= 0x10;
        assert_eq!(refused(engine.restore(&damaged)).field, "snapshot");
    }
    for length in [0, 3, 15, 16, snapshot.len() - 1] {
        assert_eq!(
            refused(engine.restore(&snapshot[..length])).field,
            "snapshot"
        );
    }
    assert_eq!(engine.revision(), 0);
    engine.restore(&snapshot).unwrap();
    assert_eq!(engine.revision(), rig.engine.revision());
}

/// Events are folded in order; a gap is refused.
#[test]
fn events_are_folded_without_gaps() {
    let rig = ready();
    let mut engine = Engine::try_new(&CONFIG, &managers(), &[MANAGED]).unwrap();
    assert_eq!(
        engine.apply(&rig.log[1]).unwrap_err().reason.as_str(),
        "FUTURE_REVISION"
    );
    engine.apply(&rig.log[0]).unwrap();
    assert_eq!(
        engine.apply(&rig.log[0]).unwrap_err().reason.as_str(),
        "FUTURE_REVISION"
    );
}

/// Unknown, missing, repeated and impossible configuration is refused by key; so is a rank no manager may have.
#[test]
fn configuration_is_complete_and_sane() {
    let without = |key: &str| {
        CONFIG
            .iter()
            .copied()
            .filter(|(name, _)| *name != key)
            .collect::<Vec<_>>()
    };
    let with = |key: &'static str, value: f64| {
        let mut config = without(key);
        config.push((key, value));
        config
    };
    let field =
        |config: &[(&str, f64)]| Engine::try_new(config, &managers(), &[]).unwrap_err().field;
    assert_eq!(field(&without("hold_s")), "hold_s");
    let mut unknown = CONFIG.to_vec();
    unknown.push(("holds", 1.0));
    assert_eq!(field(&unknown), "holds");
    let mut twice = CONFIG.to_vec();
    twice.push(("hold_s", 1.0));
    assert_eq!(field(&twice), "hold_s");
    for (key, value) in [
        ("warn1", -5.0),
        ("hold_s", 0.5),
        ("hold_s", f64::NAN),
        ("arm_loss_r", 0.5),
        ("partial_fraction", 0.0),
        ("hedge_ratio", 1.5),
        ("slow_s", 30.0),
        ("allow_loosen", 2.0),
        ("lease_ttl_ms", 0.0),
    ] {
        assert_eq!(field(&with(key, value)), key);
    }
    for (name, rank) in [("bot", 4), ("bot", 2), ("bot", 0), ("bot", 9)] {
        assert_eq!(
            Engine::try_new(&CONFIG, &[(name, rank)], &[])
                .unwrap_err()
                .field,
            name
        );
    }
}

/// Prices and volumes survive the way to integers and back to the same decimal double.
#[test]
fn conversion_is_exact() {
    let mut rules = spec();
    (rules.point, rules.tick_size) = (0.00001, 0.00001);
    let symbol = Symbol::try_new(rules).unwrap();
    for points in (1..400_000).step_by(37) {
        let price = symbol.price(Points(points));
        assert_eq!(
            price.to_bits(),
            format!("{points}e-5").parse::<f64>().unwrap().to_bits()
        );
        assert_eq!(symbol.exact_price("p", price).unwrap(), Points(points));
    }
    for steps in 1..10_000 {
        let volume = symbol.volume(Steps(steps));
        assert_eq!(
            volume.to_bits(),
            format!("{steps}e-2").parse::<f64>().unwrap().to_bits()
        );
        assert_eq!(symbol.exact_volume("v", volume).unwrap(), Steps(steps));
    }
    assert!(symbol.exact_price("p", 1.000_002_5).is_err());
    let mut odd = spec();
    (odd.point, odd.tick_size, odd.volume_step, odd.volume_min) = (0.25, 0.25, 1.0, 1.0);
    let symbol = Symbol::try_new(odd).unwrap();
    assert_eq!(
        symbol
            .price(symbol.exact_price("p", 4_321.75).unwrap())
            .to_bits(),
        4_321.75_f64.to_bits()
    );
}

/// A trade takes at most 1 KiB: record, watch, index entry and position entry, with room for its lists.
#[test]
fn a_trade_fits_into_a_kibibyte() {
    let (record, watch) = (size_of::<TradeRecord>(), size_of::<Watch>());
    // Two hash entries of 24 bytes at the lowest load factor of 7/16.
    let maps = 2 * 24 * 16 / 7;
    assert!(record + watch + maps <= 900, "{record} + {watch} + {maps}");
    assert!(watch <= 40);
}

/// A position that was adopted before its client registered it becomes the client's: strategy, owner and R are
/// those of the registration, what happened since stays. The same registration again changes nothing.
#[test]
fn an_adopted_trade_is_taken_over_by_its_client() {
    let mut rig = ready();
    let adopt = |rig: &mut Rig, sl| {
        rig.try_register_from(Origin::External, TICKET, "", 5, sl, None, 1.0)
            .unwrap()
    };
    adopt(&mut rig, Some(109_500));
    let adopted = rig.trade();
    assert_eq!(
        (adopted.origin, adopted.managed_by.as_str()),
        (Origin::External, "")
    );
    let register =
        |rig: &mut Rig| rig.try_register(TICKET, MANAGED, 9, Some(109_000), Some(113_000), 1.0);
    assert_eq!(
        names(&register(&mut rig).unwrap()),
        ["TradeRegistered", "OwnershipGranted"]
    );
    let trade = rig.trade();
    assert_eq!(
        (trade.origin, trade.strategy_type.as_str(), trade.opened_ns),
        (Origin::Client, MANAGED, adopted.opened_ns - 4_000_000_000)
    );
    assert_eq!(trade.initial_sl, Some(rig.price(109_000)));
    assert_eq!(
        trade.confirmed.sl,
        Some(rig.price(109_500)),
        "the broker's word stays"
    );
    assert_eq!(trade.risk_distance, Some(rig.price(1_000)));
    assert!(trade.owner_epoch > adopted.owner_epoch);
    assert!(register(&mut rig).unwrap().is_empty());
    rig.restart();
    assert!(register(&mut rig).unwrap().is_empty());
}

/// Another body than that of the adopted position is refused, and so is a trade that has ended.
#[test]
fn only_the_same_position_is_taken_over() {
    let mut rig = ready();
    rig.try_register_from(Origin::External, TICKET, "", 5, None, None, 1.0)
        .unwrap();
    let error = refused(rig.try_register(TICKET, "", 5, None, None, 0.5));
    assert_eq!(error.reason.as_str(), "TRADE_DIFFERS");
    rig.closed(TICKET, CloseReason::Client, PIVOT);
    let error = refused(rig.try_register(TICKET, MANAGED, 5, None, None, 1.0));
    assert_eq!(error.reason.as_str(), "TRADE_DIFFERS");
}

/// What a broker holds is adopted as it is: a stop beyond the entry gives no R, which then comes from the ATR.
#[test]
fn a_stop_in_profit_is_adopted() {
    let mut rig = ready();
    rig.try_register_from(
        Origin::External,
        TICKET,
        "",
        5,
        Some(PIVOT + 100),
        None,
        1.0,
    )
    .unwrap();
    let trade = rig.trade();
    assert_eq!(trade.confirmed.sl, Some(rig.price(PIVOT + 100)));
    assert_eq!(trade.risk_source, RiskSource::Pending);
}
