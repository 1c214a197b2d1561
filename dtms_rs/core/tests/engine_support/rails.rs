//! What the tests of rails and of the brakes share.
use dtms_core::enums::{CloseReason, Rail};
use dtms_core::event::{Event, RailChanged};
use dtms_core::rails::SPREADS_NEEDED;

use super::{PIVOT, Rig, Setup};

pub fn edges(events: &[Event]) -> Vec<RailChanged> {
    crate::bodies!(events, RailChanged)
}

pub fn ready(setup: Setup) -> Rig {
    let mut rig = setup.rig();
    rig.warm();
    rig.score(-1.0);
    rig.register();
    rig.tick(PIVOT);
    rig
}

pub fn holding(rig: &Rig) -> Vec<Rail> {
    rig.engine.status().rails.iter().map(|it| it.rail).collect()
}

/// The edges of a position that is registered and closed at once.
pub fn lose(rig: &mut Rig, ticket: u64, reason: CloseReason, profit: f64) -> Vec<(Rail, bool)> {
    rig.try_register(ticket, "", 0, Some(109_000), None, 1.0)
        .unwrap();
    let events = rig.closed_with(ticket, reason, profit);
    edges(&events)
        .iter()
        .map(|edge| (edge.rail, edge.engaged))
        .collect()
}

/// As many ticks with a spread of 10 points as the median needs.
pub fn calm(rig: &mut Rig) {
    for _ in 0..SPREADS_NEEDED {
        rig.quote(PIVOT, PIVOT + 10).unwrap();
    }
}
