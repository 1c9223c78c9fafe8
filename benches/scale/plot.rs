//! A plot with two logarithmic axes, as SVG text: a few lines of points with their names, and a grid of decades.

use std::fmt::Write;

/// A named line; its points have positive coordinates.
pub struct Line {
    /// What stands at its end.
    pub name: &'static str,
    /// x and y, by rising x.
    pub points: Vec<(f64, f64)>,
}

/// The picture, and the plot within it: left, right, top, bottom. In pixels.
const SIZE: (f64, f64) = (780.0, 420.0);
const FRAME: (f64, f64, f64, f64) = (70.0, 590.0, 40.0, 370.0);
/// Colours that differ also for those who see fewer of them.
const COLOURS: [&str; 7] = ["#cc79a7", "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e69f00", "#7fc97f"];

/// Decades that hold all the values.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let logs: Vec<f64> = values.map(f64::log10).collect();
    let low = logs.iter().copied().fold(f64::INFINITY, f64::min).floor() as i32;
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil() as i32;
    (low, high.max(low + 1))
}

fn number(exponent: i32) -> String {
    match exponent {
        0..=5 => {
            let text = 10u64.pow(exponent.unsigned_abs()).to_string();
            if text.len() > 3 {
                format!("{},{}", &text[..text.len() - 3], &text[text.len() - 3..])
            } else {
                text
            }
        }
        _ => format!("1e{exponent}"),
    }
}

/// The whole file.
pub fn render(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let (left, right, top, bottom) = FRAME;
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let (x_low, x_high) = decades(points().map(|p| p.0));
    let (y_low, y_high) = decades(points().map(|p| p.1));
    let place = |value: f64, (low, high): (i32, i32), from: f64, to: f64| {
        from + (value.log10() - f64::from(low)) / f64::from(high - low) * (to - from)
    };
    let x = |value| place(value, (x_low, x_high), left, right);
    let y = |value| place(value, (y_low, y_high), bottom, top);
    let mut out = String::new();
    // Writing to a string does not fail.
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{text}");
    };
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">",
        SIZE.0, SIZE.1
    ));
    put(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"));
    put(format_args!("<text x=\"{left}\" y=\"24\" font-size=\"15\">{title}</text>"));
    for exponent in x_low..=x_high {
        let at = x(10f64.powi(exponent));
        put(format_args!("<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>"));
        put(format_args!(
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            number(exponent)
        ));
    }
    for exponent in y_low..=y_high {
        let at = y(10f64.powi(exponent));
        put(format_args!("<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>"));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            number(exponent)
        ));
    }
    put(format_args!(
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text>",
        (left + right) / 2.0,
        bottom + 40.0
    ));
    put(format_args!(
        "<text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y_name}</text>",
        (top + bottom) / 2.0
    ));
    // Names of lines that end close to each other stand one above the other.
    let mut ends: Vec<(usize, f64)> =
        lines.iter().enumerate().filter_map(|(i, line)| line.points.last().map(|p| (i, y(p.1)))).collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut above = f64::NEG_INFINITY;
    for (i, end) in ends {
        let (line, colour) = (&lines[i], COLOURS[i % COLOURS.len()]);
        let places: Vec<String> =
            line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            places.join(" ")
        ));
        let at = end.max(above + 16.0);
        above = at;
        let (name, ns) = (line.name, line.points.last().map_or(0.0, |p| p.1));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{name} {ns:.0}</text>",
            right + 8.0,
            at + 4.0
        ));
    }
    put(format_args!("</svg>"));
    out
}
