//! clap explains an error over several lines, with colours; here it becomes one line that says what to do.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

/// The text to print if --help or --version was asked for; else the one line of complaint. `program`: whose --help
/// tells more.
pub fn explain(error: &clap::Error, program: &str) -> Result<String, Failure> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        Some(ContextValue::StyledStr(text)) => Some(text.to_string()),
        _ => None,
    };
    // As in the definition: `--config <FILE>`. Its name is enough.
    let arg = context(ContextKind::InvalidArg).unwrap_or_default();
    let bare = |arg: &str| {
        let arg = arg.trim_start_matches(['[', '<']);
        arg.split([' ', '=', '[', '<', ']', '>']).next().unwrap_or_default().trim_end_matches('.').to_owned()
    };
    let name = bare(&arg);
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let text = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(error.render().to_string()),
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("there is no command {word}; see: aoefs --help")
        }
        ErrorKind::UnknownArgument if !arg.starts_with('-') => {
            format!("{arg} is one word too many; see: {program} --help")
        }
        ErrorKind::UnknownArgument => match context(ContextKind::SuggestedArg) {
            Some(like) => format!("unknown option {arg}; did you mean {like}?"),
            None => format!("unknown option {arg}; see: {program} --help"),
        },
        ErrorKind::ArgumentConflict => {
            let other = bare(&context(ContextKind::PriorArg).unwrap_or_default());
            format!("{name} and {other} exclude each other; leave one of them out")
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{name} needs a value; see: {program} --help")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
            format!("{name}: bad value \"{value}\"{why}; see: {program} --help")
        }
        ErrorKind::MissingRequiredArgument => {
            format!("{name} is missing; see: {program} --help")
        }
        ErrorKind::NoEquals => format!("{name} takes its value with =, as in {name}=64M"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8; write it in plain characters".into(),
        _ => {
            let all = error.render().to_string();
            let first = all.lines().next().unwrap_or_default();
            format!("{}; see: {program} --help", first.trim_start_matches("error: "))
        }
    };
    Err(Failure::usage(text))
}
