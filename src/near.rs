//! What a message says of names: the one that was probably meant ("did you mean"), and those that there are.

/// One letter in so many may be wrong.
const LETTERS_A_MISTAKE: usize = 3;

/// The known word that is nearest to `word`, if one is near enough: about one letter in three may be missing, surplus,
/// wrong or swapped with its neighbour; capitals do not count.
pub fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word is like none that is known, and comparing it would take long.
    const LONGEST: usize = 40;
    let mistakes = (word.chars().count() / LETTERS_A_MISTAKE).max(1);
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let far = |known: &str| strsim::damerau_levenshtein(&word, known);
    let all = known.into_iter().map(|known| (far(known), known));
    all.filter(|(far, known)| *far <= mistakes && *far < known.len())
        .min_by_key(|(far, _)| *far)
        .map(|(_, known)| known)
}

/// `; did you mean WORD?` if there is such a word, else what else to do.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    match near(word, known) {
        Some(known) => format!("; did you mean {known}?"),
        None => format!("; {otherwise}"),
    }
}

/// More names than this would hide what a message says.
const LISTED_MAX: usize = 8;

/// The first names and how many more there are, or `none`.
pub fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len() {
        0 => "none".into(),
        n if n > LISTED_MAX => format!("{} and {} more", names[..LISTED_MAX].join(", "), n - LISTED_MAX),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_found_and_other_words_are_not() {
        let known = ["bind", "unbind", "discover", "identify", "part", "on"];
        for (word, meant) in [
            ("bnid", "bind"),
            ("BIND", "bind"),
            ("discove", "discover"),
            ("idnetfy", "identify"),
            ("parts", "part"),
        ] {
            assert_eq!(near(word, known), Some(meant), "{word}");
        }
        for word in ["", "x", "frobnicate", "remove", &"part".repeat(20)] {
            assert_eq!(near(word, known), None, "{word}");
        }
        assert_eq!(hint("unbnd", known, "see x"), "; did you mean unbind?");
        assert_eq!(hint("frobnicate", known, "see x"), "; see x");
    }

    #[test]
    fn a_list_of_names_has_an_end() {
        assert_eq!(listed([""; 0]), "none");
        assert_eq!(listed(1..=8), "1, 2, 3, 4, 5, 6, 7, 8");
        assert_eq!(listed(1..=10), "1, 2, 3, 4, 5, 6, 7, 8 and 2 more");
    }
}
