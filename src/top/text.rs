//! Prometheus text, line by line. Lines that are no samples (comments, blank lines, nonsense) are skipped.

use std::borrow::Cow;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// The name of its series.
    pub name: &'a str,
    /// Its labels, unescaped.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Its value.
    pub value: f64,
}

impl Line<'_> {
    /// A label's value; empty if there is no such label, which means the same to Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// Whether the page came whole: it ends with the line that says so.
pub fn is_whole(page: &str) -> bool {
    page.ends_with("\n# EOF\n") || page == "# EOF\n"
}

/// The samples of a page.
pub fn lines(page: &str) -> impl Iterator<Item = Line<'_>> {
    page.lines().filter_map(line)
}

fn line(line: &str) -> Option<Line<'_>> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = value(after)?;
            labels.push((label, value));
            rest = after;
        }
    }
    // A time stamp may follow the value.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    (!name.is_empty() && name.chars().all(named)).then_some(Line { name, labels, value })
}

/// A quoted value up to its closing quote, and the text behind it.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut unescaped = String::new();
    let mut from = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if unescaped.is_empty() && from == 0 => return Some((text[..at].into(), &text[at + 1..])),
            '"' => {
                unescaped.push_str(&text[from..at]);
                return Some((unescaped.into(), &text[at + 1..]));
            }
            '\\' => {
                unescaped.push_str(&text[from..at]);
                let (at, escaped) = chars.next()?;
                unescaped.push(if escaped == 'n' { '\n' } else { escaped });
                from = at + escaped.len_utf8();
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_with_and_without_labels() {
        let page =
            "# HELP a b\n# TYPE a gauge\na 1\nb{} 2.5\nc{x=\"1\",y=\"p\\\"q\\\\r\\ns\"} 3e2 1700000000\n";
        let found: Vec<Line<'_>> = lines(page).collect();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].name, found[0].value), ("a", 1.0));
        assert_eq!((found[1].name, found[1].value), ("b", 2.5));
        assert_eq!((found[2].name, found[2].value), ("c", 300.0));
        assert_eq!((found[2].label("x"), found[2].label("y"), found[2].label("z")), ("1", "p\"q\\r\ns", ""));
    }

    #[test]
    fn nonsense_is_passed_over() {
        let nonsense = [
            "",
            " ",
            "a",
            "a b",
            "{} 1",
            "a{x} 1",
            "a{x=} 1",
            "a{x=\"} 1",
            "a{x=\"1\"",
            "a{x=\"1\"}",
            "a{x=\"\\",
            "= 1 }",
            "a{x=\"1\"} NaNa",
        ];
        for text in nonsense {
            assert_eq!(line(text), None, "{text:?}");
        }
        assert_eq!(line("a +Inf").map(|line| line.value), Some(f64::INFINITY));
    }

    #[test]
    fn a_page_that_was_cut_is_seen() {
        assert!(is_whole("a 1\n# EOF\n") && is_whole("# EOF\n"));
        for cut in ["", "a 1\n", "a 1\n# EO", "a 1\n# EOF", "a 1 # EOF\n"] {
            assert!(!is_whole(cut), "{cut:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(page in "(?s).{0,200}", labels in "[a{}=\",\\\\ 1\n]{0,60}") {
            lines(&page).count();
            lines(&labels).count();
        }
    }
}
