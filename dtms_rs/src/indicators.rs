//! The indicators and the score over whole series, so that Python can compare them with TA-Lib.
use dtms_core::indicator::{Atr, Bollinger, Ema, Macd, Rsi};
use dtms_core::market::{Bar, BarIgnored, Market, MarketConfig, Reading};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// One value per input; `None` until the indicator is warm.
type Series = Vec<Option<f64>>;
/// `(timeframe_s, time_s, open, high, low, close, volume)`.
type BarRow = (u32, i64, f64, f64, f64, f64, f64);

/// Exponential moving average.
#[pyfunction]
pub fn ema(values: Vec<f64>, period: u32) -> PyResult<Series> {
    let mut ema = Ema::new(positive(period)?);
    Ok(values.into_iter().map(|value| ema.update(value)).collect())
}

/// Relative strength index, 0..=100.
#[pyfunction]
pub fn rsi(values: Vec<f64>, period: u32) -> PyResult<Series> {
    let mut rsi = Rsi::new(positive(period)?);
    Ok(values.into_iter().map(|value| rsi.update(value)).collect())
}

/// `(macd, signal, histogram)`.
#[pyfunction]
pub fn macd(
    values: Vec<f64>,
    fast: u32,
    slow: u32,
    signal: u32,
) -> PyResult<(Series, Series, Series)> {
    if positive(fast)? > slow {
        return Err(PyValueError::new_err("fast must not exceed slow"));
    }
    let mut macd = Macd::new(fast, slow, positive(signal)?);
    let mut series = (Series::new(), Series::new(), Series::new());
    for value in values {
        let point = macd.update(value);
        series.0.push(point.map(|point| point.macd));
        series.1.push(point.map(|point| point.signal));
        series.2.push(point.map(|point| point.histogram));
    }
    Ok(series)
}

/// Average true range, in price units. The three series have one length.
#[pyfunction]
pub fn atr(high: Vec<f64>, low: Vec<f64>, close: Vec<f64>, period: u32) -> PyResult<Series> {
    if high.len() != close.len() || low.len() != close.len() {
        return Err(PyValueError::new_err(
            "high, low and close differ in length",
        ));
    }
    let mut atr = Atr::new(positive(period)?);
    let bars = high.into_iter().zip(low).zip(close);
    Ok(bars
        .map(|((high, low), close)| atr.update(high, low, close))
        .collect())
}

/// `(mean, width)` of the bands at two deviations; the width is relative to the mean.
#[pyfunction]
pub fn bollinger(values: Vec<f64>, period: u32) -> PyResult<(Series, Series)> {
    let mut bands = Bollinger::new(positive(period)?, 2.0);
    Ok(values
        .into_iter()
        .map(|value| {
            let band = bands.update(value);
            (band.map(|band| band.mean), band.map(|band| band.width))
        })
        .unzip())
}

/// Feeds closed bars `(timeframe_s, time_s, open, high, low, close, volume)` to one market and
/// returns the reading after each. `ignored` names the reason where a bar changed nothing, else it
/// is `None`.
#[pyfunction]
pub fn score_bars(
    py: Python<'_>,
    fast_s: u32,
    slow_s: u32,
    vwap_threshold: f64,
    bars: Vec<BarRow>,
) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let mut market = Market::new(MarketConfig {
        fast_s: positive(fast_s)?,
        slow_s: positive(slow_s)?,
        vwap_slope_threshold: vwap_threshold,
    });
    bars.into_iter()
        .map(|(timeframe_s, time_s, open, high, low, close, volume)| {
            let bar = Bar {
                time_s,
                open,
                high,
                low,
                close,
                volume,
            };
            let outcome = market.on_bar(timeframe_s, bar);
            let row = reading(py, market.reading())?;
            let closed = outcome.unwrap_or_default();
            row.set_item("closed_fast", closed.fast)?;
            row.set_item("closed_slow", closed.slow)?;
            row.set_item("ignored", outcome.err().map(ignored))?;
            Ok(row)
        })
        .collect()
}

fn positive(number: u32) -> PyResult<u32> {
    if number == 0 {
        return Err(PyValueError::new_err(
            "periods and timeframes are at least 1",
        ));
    }
    Ok(number)
}

fn ignored(reason: BarIgnored) -> &'static str {
    match reason {
        BarIgnored::Late => "late",
        BarIgnored::Duplicate => "duplicate",
        BarIgnored::Invalid => "invalid",
    }
}

fn reading<'py>(py: Python<'py>, reading: &Reading) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    let parts = reading.parts;
    row.set_item("structure", parts.structure)?;
    row.set_item("vwap_volume", parts.vwap_volume)?;
    row.set_item("momentum", parts.momentum)?;
    row.set_item("ema_alignment", parts.ema_alignment)?;
    row.set_item("delta_pressure", parts.delta_pressure)?;
    row.set_item("candle_conviction", parts.candle_conviction)?;
    row.set_item("total", reading.total)?;
    row.set_item("session", reading.regime.session.number())?;
    row.set_item("volatility", reading.regime.volatility.number())?;
    row.set_item("regime_structure", reading.regime.structure.number())?;
    row.set_item("multiplier", reading.multiplier)?;
    row.set_item("vwap_flip", reading.vwap_flip)?;
    row.set_item("volume_flip", reading.volume_flip)?;
    row.set_item("bos", reading.bos)?;
    row.set_item("choch", reading.choch)?;
    row.set_item("choch_confirmed", reading.choch_confirmed)?;
    row.set_item("swing_low", reading.swing_low)?;
    row.set_item("swing_high", reading.swing_high)?;
    row.set_item("atr_slow", reading.atr_slow)?;
    row.set_item("atr_fast", reading.atr_fast)?;
    Ok(row)
}
