//! How long a trade and a decision take: `cargo bench -p dtms-core`.
//!
//! Prints one JSON object: nanoseconds a trade in a batch over 1,000,000 trades of 50 symbols, when
//! nothing is due and when every trade changes its state; nanoseconds a decision. Each figure is the
//! median of its rounds. Measured with the standard library: a benchmark framework would triple what
//! `make test` has to build.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panic"
)]
#[path = "../tests/engine_support/mod.rs"]
mod engine_support;

use std::hint::black_box;
use std::time::Instant;

use dtms_core::engine::{Engine, Proposal, Registration};
use dtms_core::enums::{ActionKind, Origin, Side};
use dtms_core::event::SymbolSpec;
use dtms_core::market::Bar;
use dtms_core::message::Text;
use engine_support::{ACCOUNT, CONFIG, EXIT, PIVOT, S, SCALE, START_S, action, managers, spec};

const SYMBOLS: u32 = 50;
const TRADES: u32 = 1_000_000;
const ROUNDS: usize = 15;
const DECISIONS: u32 = 20_000;

fn price(points: i64) -> f64 {
    points as f64 / SCALE
}

fn symbol(number: u32) -> String {
    format!("S{number:02}")
}

/// Warm markets, trades of both sides, a neutral score from outside.
fn populated(trades: u32) -> Engine {
    let mut engine = Engine::try_new(&CONFIG, &managers(), &[]).unwrap();
    let now_ns = START_S * S;
    engine.define_account(ACCOUNT, true, "USD", now_ns).unwrap();
    for number in 0..SYMBOLS {
        let rules = SymbolSpec {
            symbol: Text::from(symbol(number).as_str()),
            ..spec()
        };
        engine.define_symbol(ACCOUNT, rules, now_ns).unwrap();
        for minute in 0..18 {
            let close = price(PIVOT + if minute % 2 == 0 { 100 } else { -100 });
            let bar = Bar {
                time_s: START_S + minute * 60,
                open: price(PIVOT),
                high: price(PIVOT + 120),
                low: price(PIVOT - 120),
                close,
                volume: 1.0,
            };
            engine
                .on_bar(ACCOUNT, &symbol(number), 60, bar, now_ns)
                .unwrap();
        }
        score(&mut engine, number, -1.0, now_ns);
    }
    for number in 0..trades {
        let side = if number % 2 == 0 {
            Side::Buy
        } else {
            Side::Sell
        };
        let asked = Registration {
            account_id: ACCOUNT,
            ticket: u64::from(number) + 1,
            symbol: &symbol(number % SYMBOLS),
            side,
            entry_price: price(PIVOT),
            volume: 1.0,
            sl: Some(price(PIVOT - 1_000 * side.sign())),
            tp: None,
            strategy_type: "",
            opened_ns: now_ns - 1_000 * S,
            origin: Origin::Client,
            registered_by: "bench",
        };
        engine.register(&asked, now_ns, 0).unwrap();
    }
    engine
}

fn score(engine: &mut Engine, number: u32, total: f64, now_ns: i64) -> usize {
    let parts = [("total", total)];
    let step = engine.report_score(ACCOUNT, &symbol(number), &parts, "bench", i64::MAX, now_ns);
    step.unwrap().events.len()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn quiet_ticks(engine: &mut Engine, time_msc: &mut i64) -> f64 {
    let started = Instant::now();
    for number in 0..SYMBOLS {
        *time_msc += 1;
        let wobble = PIVOT + i64::from(number % 3);
        let now_ns = (START_S + 1_100) * S;
        let step = engine
            .on_tick(
                ACCOUNT,
                &symbol(number),
                *time_msc,
                price(wobble),
                price(wobble + 10),
                1.0,
                now_ns,
            )
            .unwrap();
        black_box(step.events.len());
    }
    started.elapsed().as_nanos() as f64 / f64::from(TRADES)
}

fn decisions(engine: &mut Engine) -> f64 {
    let mut figures = Vec::new();
    for number in 0..DECISIONS {
        let ticket = u64::from(number) * 2 + 1;
        let asked = dtms_core::event::Action {
            stop: Some(price(PIVOT - 900)),
            ..action(ActionKind::Stop)
        };
        let owner_epoch = engine
            .ownership(ACCOUNT, ticket, 0)
            .unwrap()
            .unwrap()
            .owner_epoch;
        let request_id = format!("b{number}");
        let proposal = Proposal {
            manager: EXIT,
            request_id: &request_id,
            account_id: ACCOUNT,
            ticket,
            owner_epoch,
            action: &asked,
            dry_run: false,
        };
        let started = Instant::now();
        let step = engine.propose(&proposal, (START_S + 1_100) * S, 0).unwrap();
        figures.push(started.elapsed().as_nanos() as f64);
        assert!(step.reply.decision.granted);
        black_box(step);
    }
    median(figures)
}

fn main() {
    let mut engine = populated(TRADES);
    let mut time_msc = (START_S + 1_080) * 1_000;
    // The first round arms every trade by its age.
    quiet_ticks(&mut engine, &mut time_msc);
    let quiet = median(
        (0..ROUNDS)
            .map(|_| quiet_ticks(&mut engine, &mut time_msc))
            .collect(),
    );
    let decision = decisions(&mut engine);
    let started = Instant::now();
    let events: usize = (0..SYMBOLS)
        .map(|number| score(&mut engine, number, -3.0, (START_S + 1_200) * S))
        .sum();
    let changed = started.elapsed().as_nanos() as f64;
    let moved = f64::from(TRADES / 2);
    println!(
        "{{\"trades\": {TRADES}, \"symbols\": {SYMBOLS}, \"quiet_ns_per_trade\": {quiet:.2}, \
         \"changing_ns_per_trade\": {:.0}, \"events_of_change\": {events}, \"decision_ns\": {decision:.0}}}",
        changed / moved
    );
}
