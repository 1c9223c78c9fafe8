//! Numbers for narrow columns: at most seven characters, decimal prefixes, a dash for unknown values.

/// Prefixes above the unit itself.
const PREFIXES: [&str; 6] = ["k", "M", "G", "T", "P", "E"];

/// A count or a rate: `0`, `0.25`, `9.5`, `123`, `12345`, `123k`.
pub fn count(number: impl Into<Option<f64>>) -> String {
    match number.into() {
        Some(n) if !n.is_finite() || n < 0.0 => "?".into(),
        Some(n) if n < 99_999.5 && n.fract() == 0.0 => format!("{n:.0}"),
        Some(n) if n < 99_999.5 => digits(n),
        Some(n) => prefixed(n),
        None => "-".into(),
    }
}

/// Bytes: `512B`, `64.0MB`, `1.07GB`.
pub fn bytes(number: f64) -> String {
    match number {
        n if !n.is_finite() || n < 0.0 => "?".into(),
        n if n < 999.5 => format!("{n:.0}B"),
        n => match prefixed(n) {
            unknown if unknown == "?" => unknown,
            known => known + "B",
        },
    }
}

/// Bytes as millions of bytes, for columns of rates: `0.00`, `12.3`, `1234`.
pub fn megabytes(number: Option<f64>) -> String {
    match number {
        Some(n) if !n.is_finite() || n < 0.0 => "?".into(),
        Some(n) => match n / 1e6 {
            n if n < 9.995 => format!("{n:.2}"),
            n if n < 999.95 => format!("{n:.1}"),
            n if n < 99_999.5 => format!("{n:.0}"),
            n => prefixed(n),
        },
        None => "-".into(),
    }
}

/// Seconds: `85us`, `1.25ms`, `12.5s`.
pub fn seconds(number: Option<f64>) -> String {
    match number {
        Some(s) if !s.is_finite() || s < 0.0 => "?".into(),
        Some(s) if s < 999.5e-6 => format!("{:.0}us", s * 1e6),
        Some(s) if s < 999.5e-3 => format!("{}ms", digits(s * 1e3)),
        Some(s) if s < 99_999.5 => format!("{}s", digits(s)),
        Some(_) => "?".into(),
        None => "-".into(),
    }
}

/// Three digits that count, but never less than the whole number.
fn digits(n: f64) -> String {
    match n {
        0.0 => "0".into(),
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

fn prefixed(mut n: f64) -> String {
    let mut prefix = "";
    for next in PREFIXES {
        if n < 999.5 {
            break;
        }
        n /= 1000.0;
        prefix = next;
    }
    // A number beyond all prefixes is nonsense, but must not break a column.
    if n < 99_999.5 { format!("{}{prefix}", digits(n)) } else { "?".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_narrow_and_true() {
        for (n, text) in [
            (0.0, "0"),
            (4.0, "4"),
            (0.25, "0.25"),
            (9.5, "9.50"),
            (9.999, "10.0"),
            (99.96, "100"),
            (123.0, "123"),
            (99_999.0, "99999"),
            (123_456.0, "123k"),
            (1.5e6, "1.50M"),
            (f64::NAN, "?"),
            (-1.0, "?"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!(count(None), "-");
        for (n, text) in
            [(0.0, "0B"), (512.0, "512B"), (67_108_864.0, "67.1MB"), (1.8e19, "18.0EB"), (1e30, "?")]
        {
            assert_eq!(bytes(n), text);
        }
        for (n, text) in [(0.0, "0.00"), (12.34e6, "12.3"), (1234e6, "1234"), (1e15, "1.00G")] {
            assert_eq!(megabytes(Some(n)), text);
        }
        for (n, text) in [
            (0.0, "0us"),
            (85e-6, "85us"),
            (0.001_25, "1.25ms"),
            (0.212, "212ms"),
            (0.9999, "1.00s"),
            (12.5, "12.5s"),
            (67.108_864, "67.1s"),
        ] {
            assert_eq!(seconds(Some(n)), text);
        }
        assert_eq!(seconds(None), "-");
    }

    proptest::proptest! {
        #[test]
        fn no_number_breaks_a_column(n in proptest::num::f64::ANY) {
            for text in [count(n), bytes(n), megabytes(Some(n)), seconds(Some(n))] {
                assert!(text.len() <= 7, "{text}");
            }
        }
    }
}
