//! `config VERB STRING`: a question to the target, and whether its answer agrees with it.

use std::sync::Arc;

use crate::engine::{Io, Output};
use crate::fs::context::Context;
use crate::fs::ctl::CtlError;
use crate::fs::errno::{self, Errno};
use crate::fs::file::script::Ended;
use crate::runtime::Unit;
use crate::wire::Verb;

/// Asks the target.
pub fn config(context: &Context, unit: &Arc<Unit>, verb: Verb, string: Vec<u8>, ended: Ended) {
    let io = Io::Config { verb, string: string.clone() };
    context.submit(unit, context.whole(unit), false, io, move |outcome| {
        let done = match outcome {
            Ok(Output::Config(said)) => agrees(verb, &string, &said),
            Ok(_) => Err(Errno::EIO),
            Err(error) => Err(match (verb, Errno::from(error)) {
                // A target that has another string does not answer.
                (Verb::Test | Verb::Prefix, Errno::ETIMEDOUT) => Errno::ENOENT,
                (_, errno) => errno,
            }),
        };
        ended(done.map_err(|errno| CtlError::new(errno, why(verb, errno))));
    });
}

/// Whether the answer is one to this question: some targets answer every verb as if it were a read.
fn agrees(verb: Verb, asked: &[u8], said: &[u8]) -> Result<(), Errno> {
    match verb {
        Verb::Prefix if !said.starts_with(asked) => Err(Errno::ENOENT),
        Verb::Test if said != asked => Err(Errno::ENOENT),
        Verb::Set if said != asked => Err(Errno::EEXIST),
        Verb::Force if said != asked => Err(Errno::EIO),
        _ => Ok(()),
    }
}

fn why(verb: Verb, errno: Errno) -> String {
    let words = match (verb, errno) {
        (Verb::Test | Verb::Prefix, Errno::ENOENT) => {
            "the target has another string, or did not answer; to see it: cat config"
        }
        (_, Errno::EEXIST) => "the target has another string already; config force replaces it",
        (_, Errno::ETIMEDOUT) => "no answer within 2 s; is the target up? see state in ctl",
        _ => return errno::words(errno),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_agree_is_none() {
        let agrees = |verb, asked: &str, said: &str| agrees(verb, asked.as_bytes(), said.as_bytes());
        assert_eq!(agrees(Verb::Test, "a", "a"), Ok(()));
        assert_eq!(agrees(Verb::Test, "a", "ab"), Err(Errno::ENOENT));
        assert_eq!(agrees(Verb::Prefix, "a", "ab"), Ok(()));
        assert_eq!(agrees(Verb::Prefix, "", ""), Ok(()));
        assert_eq!(agrees(Verb::Prefix, "b", "ab"), Err(Errno::ENOENT));
        assert_eq!(agrees(Verb::Set, "mine", "mine"), Ok(()));
        assert_eq!(agrees(Verb::Set, "mine", "theirs"), Err(Errno::EEXIST));
        assert_eq!(agrees(Verb::Force, "mine", "theirs"), Err(Errno::EIO));
    }
}
