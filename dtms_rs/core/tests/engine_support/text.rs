//! Events as text, turned back if they come from a mirrored rig.
use dtms_core::event::Event;
use dtms_core::message::{Text, Writer};

use super::{PIVOT, SCALE};

const PRICES: [&str; 13] = [
    "entry_price",
    "sl",
    "tp",
    "initial_sl",
    "initial_tp",
    "bid",
    "ask",
    "price",
    "stop",
    "target",
    "confirmed_sl",
    "close_price",
    "level",
];
const SCORES: [&str; 7] = [
    "total",
    "structure",
    "vwap_volume",
    "momentum",
    "ema_alignment",
    "delta_pressure",
    "candle_conviction",
];

#[derive(Default)]
struct Lines {
    mirror: bool,
    is_report: bool,
    fields: Vec<String>,
}

impl Lines {
    fn put(&mut self, name: &str, value: &dyn std::fmt::Display) {
        self.fields.push(format!("{name}={value}"));
    }
}

impl Writer for Lines {
    fn boolean(&mut self, name: &'static str, value: bool) {
        self.put(name, &value);
    }
    fn int(&mut self, name: &'static str, value: i64) {
        let value = if self.mirror && name == "side" {
            3 - value
        } else {
            value
        };
        self.put(name, &value);
    }
    fn uint(&mut self, name: &'static str, value: u64) {
        self.put(name, &value);
    }
    fn float(&mut self, name: &'static str, value: f64) {
        let mut name = name;
        let mut value = value;
        if self.mirror && PRICES.contains(&name) {
            #[allow(clippy::cast_precision_loss, reason = "a constant")]
            let twice = 2.0 * PIVOT as f64 / SCALE;
            value = twice - value;
            name = match name {
                "bid" => "ask",
                "ask" => "bid",
                other => other,
            };
        }
        // A reported score is that of a BUY; those of transitions are the trade's own.
        if self.mirror && self.is_report && SCORES.contains(&name) {
            value = 0.0 - value;
        }
        self.put(name, &(value + 0.0));
    }
    fn text(&mut self, name: &'static str, value: &Text) {
        self.put(name, &value.as_str());
    }
    fn presence(&mut self, _present: bool) {}
    fn choice(&mut self, _index: u8) {}
    fn open(&mut self, name: &'static str, _message: &'static str) {
        self.is_report |= name == "score_reported";
        self.put(name, &"{");
    }
    fn close(&mut self) {
        self.fields.push("}".to_owned());
    }
    fn open_list(&mut self, name: &'static str, length: usize) {
        self.put(name, &format!("[{length}"));
    }
    fn close_list(&mut self) {
        self.fields.push("]".to_owned());
    }
}

/// One line per event; those of a mirrored rig read as those of the straight one.
pub fn lines(events: &[Event], mirror: bool) -> Vec<String> {
    let line = |event: &Event| {
        let mut lines = Lines {
            mirror,
            ..Lines::default()
        };
        event.write_fields(&mut lines);
        if mirror {
            // Bid and ask change places: the pair is sorted by name again.
            for index in 1..lines.fields.len() {
                let swapped = lines.fields[index - 1].starts_with("ask=")
                    && lines.fields[index].starts_with("bid=");
                if swapped {
                    lines.fields.swap(index - 1, index);
                }
            }
        }
        lines.fields.join(" ")
    };
    events.iter().map(line).collect()
}
