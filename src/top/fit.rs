//! Text for a narrow place: what does not fit is left out between words, and an ellipsis says so.

/// Stands for what was left out.
const MORE: char = '…';

/// The text within `width` characters. Where it is too long it ends, with an ellipsis, before one of the `breaks`, or
/// else before a blank; a single word that is too long is cut.
pub fn fit(text: &str, width: usize, breaks: &[&str]) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    // Room for a blank and the ellipsis.
    let Some(room) = width.checked_sub(2) else { return text.chars().take(width).collect() };
    let end = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
    // A break that begins right behind the part that fits is one, too.
    let before = |pattern: &str| {
        let places = text.match_indices(pattern).map(|(at, _)| at);
        places.take_while(|at| *at <= end).filter(|at| *at > 0).last()
    };
    let at = breaks.iter().filter_map(|pattern| before(pattern)).max().or_else(|| before(" "));
    match at {
        Some(at) => format!("{} {MORE}", text[..at].trim_end()),
        None => text.chars().take(width - 1).chain([MORE]).collect(),
    }
}

/// The text in lines of at most `width` characters, broken between words.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        } else if used > 0 {
            line.push(' ');
            used += 1;
        }
        while word.len() > width {
            lines.push(word.drain(..width).collect());
        }
        used += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole() {
        for (text, width, breaks, fitted) in [
            ("short", 5, &[][..], "short"),
            ("", 0, &[], ""),
            ("one two three", 12, &[], "one two …"),
            ("one two three", 9, &[], "one two …"),
            ("one two three", 8, &[], "one …"),
            ("one two three", 4, &[], "one…"),
            ("unbreakable", 6, &[], "unbre…"),
            ("up 1 | down 2 | up 3", 18, &[" | "], "up 1 | down 2 …"),
            ("up 1, out 2 frames", 16, &[", "], "up 1 …"),
            ("äöü äöü äöü", 9, &[], "äöü äöü …"),
            ("abc", 1, &[], "a"),
        ] {
            assert_eq!(fit(text, width, breaks), fitted, "{text} {width}");
        }
    }

    #[test]
    fn long_lines_go_on_below() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("one two three", 80), ["one two three"]);
        assert_eq!(wrap("unbreakable it is", 6), ["unbrea", "kable", "it is"]);
        assert_eq!(wrap("", 8), [""]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_too_wide(text in "(?s).{0,60}", words in "[a-z ]{0,60}", width in 0..40usize) {
            for text in [&text, &words] {
                assert!(fit(text, width, &[", "]).chars().count() <= width);
                assert!(wrap(text, width).iter().all(|line| line.chars().count() <= width.max(1)));
            }
            // Each word that is left is one of the text.
            let fitted = fit(&words, width, &[]);
            if let Some((kept, _)) = fitted.split_once(" …") {
                assert!(words.starts_with(kept) && words[kept.len()..].starts_with(' '), "{fitted:?} of {words:?}");
            }
        }
    }
}
