//! Rows as a table: columns as wide as their widest word, numbers to the right.

/// A column's title, and whether it holds numbers.
pub struct Column(pub &'static str, pub bool);

/// A column of words.
pub const fn words(title: &'static str) -> Column {
    Column(title, false)
}

/// A column of numbers.
pub const fn numbers(title: &'static str) -> Column {
    Column(title, true)
}

/// Puts rows below their titles. Control characters in a word, which may come from a target, become blanks.
pub fn lay_out<const N: usize>(columns: &[Column; N], rows: &[[String; N]]) -> String {
    let plain = |word: &str| word.replace(char::is_control, " ");
    let mut all: Vec<[String; N]> = vec![std::array::from_fn(|i| columns[i].0.to_owned())];
    all.extend(rows.iter().map(|row| std::array::from_fn(|i| plain(&row[i]))));
    let widths: [usize; N] =
        std::array::from_fn(|i| all.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (i, word) in row.iter().enumerate() {
            let width = widths[i];
            line += &if columns[i].1 { format!("{word:>width$}  ") } else { format!("{word:<width$}  ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_words() {
        let rows = [["1.0", "9", "a\x1b"].map(String::from), ["255.254", "1024", "-"].map(String::from)];
        let text = lay_out(&[words("TARGET"), numbers("N"), words("LAST")], &rows);
        assert_eq!(text, "TARGET      N  LAST\n1.0         9  a\n255.254  1024  -\n");
    }
}
