//! What a line written to `mask` or `reserve` asks the target for.
//!
//! Pure: the command, the addresses of this machine and the list as it is go in, the request comes out. Both lists can
//! shut out the machine that edits them. A mask does so silently, for every command; so a line that would do it is
//! refused unless it has an exclamation mark.

use std::fmt::Write;

use crate::engine::Reservation;
use crate::fs::ctl::{CtlError, MaskEdit, ReserveEdit};
use crate::fs::errno::Errno;
use crate::wire::{Directive, Mac, MaskError, MaskOp};

/// Versions of vblade, as config replies have them, are 0x4000 plus a number. The usual version dies when it is told to
/// delete an entry.
const VBLADE: u16 = 0x4000;

/// The list as the file shows it.
pub fn page(list: &[Mac]) -> String {
    let mut text = String::new();
    for mac in list {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{mac}");
    }
    text
}

/// The directives for one line written to `mask`: none, if the list is like that already. `own` are the addresses by
/// which this machine reaches the target, `list` is its list, and `firmware` its version.
pub fn plan_mask(
    edit: MaskEdit,
    own: &[Mac],
    list: &[Mac],
    firmware: u16,
) -> Result<Vec<Directive>, CtlError> {
    match edit {
        MaskEdit::Add(mac) => {
            // The first entry shuts all other addresses out, those of this machine too: they go in with it, in the same
            // request.
            let first: &[Mac] = if list.is_empty() { own } else { &[] };
            if list.is_empty() && own.is_empty() {
                return Err(unreached());
            }
            let mut wanted: Vec<Mac> = Vec::new();
            for mac in first.iter().copied().chain([mac]) {
                if !list.contains(&mac) && !wanted.contains(&mac) {
                    wanted.push(mac);
                }
            }
            Ok(wanted.into_iter().map(|mac| Directive { op: MaskOp::Add, mac }).collect())
        }
        MaskEdit::Del { mac, .. } if !list.contains(&mac) => {
            Err(CtlError::new(Errno::ENOENT, format!("{mac} is not in the list")))
        }
        MaskEdit::Del { sure: false, .. } if firmware & 0xff00 == VBLADE => Err(CtlError::new(
            Errno::EOPNOTSUPP,
            format!("vblade (fw {firmware:04x}) dies of a deletion; say del! to do it nevertheless"),
        )),
        MaskEdit::Del { mac, sure: false } if own.contains(&mac) && list.len() > 1 => {
            Err(CtlError::invalid(format!(
                "{mac} is this machine: the target would answer it no more; say del! to do it nevertheless"
            )))
        }
        MaskEdit::Del { mac, .. } => Ok(vec![Directive { op: MaskOp::Delete, mac }]),
    }
}

/// Whether the list that came back is the one that was asked for: some targets mix up their entries.
pub fn check_mask(directives: &[Directive], list: &[Mac]) -> Result<(), CtlError> {
    let holds = |d: &Directive| list.contains(&d.mac) == (d.op == MaskOp::Add);
    match directives.iter().find(|d| !holds(d)) {
        None => Ok(()),
        Some(d) => {
            Err(CtlError::new(Errno::EIO, format!("the target did it wrong: see the list for {}", d.mac)))
        }
    }
}

/// The error for a directive that the target did not do. The directives before it are done.
pub fn mask_refused(error: MaskError, directive: Option<&Directive>) -> CtlError {
    let errno = match error {
        MaskError::Full => Errno::ENOSPC,
        MaskError::BadDirective => Errno::EOPNOTSUPP,
        _ => Errno::EIO,
    };
    match directive {
        Some(d) => CtlError::new(errno, format!("{error}, at {}", d.mac)),
        None => CtlError::new(errno, error.to_string()),
    }
}

/// The request for one line written to `reserve`.
pub fn plan_reserve(edit: ReserveEdit, own: &[Mac]) -> Result<Reservation, CtlError> {
    match edit {
        // An empty list would release it.
        ReserveEdit::Take if own.is_empty() => Err(unreached()),
        ReserveEdit::Take => Ok(Reservation::Set(distinct(own))),
        ReserveEdit::Release => Ok(Reservation::Set(Vec::new())),
        ReserveEdit::Set(macs) => Ok(Reservation::Set(distinct(&macs))),
        ReserveEdit::Force(macs) => Ok(Reservation::Force(distinct(&macs))),
    }
}

fn unreached() -> CtlError {
    CtlError::new(Errno::ENXIO, "no interface leads to the target")
}

/// Each once, in order.
fn distinct(macs: &[Mac]) -> Vec<Mac> {
    let mut out: Vec<Mac> = Vec::with_capacity(macs.len());
    for mac in macs {
        if !out.contains(mac) {
            out.push(*mac);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const C: Mac = Mac([2, 0, 0, 0, 0, 3]);

    fn add(macs: &[Mac]) -> Vec<Directive> {
        macs.iter().map(|mac| Directive { op: MaskOp::Add, mac: *mac }).collect()
    }

    fn del(mac: Mac, sure: bool) -> MaskEdit {
        MaskEdit::Del { mac, sure }
    }

    #[test]
    fn the_first_entry_brings_our_own() {
        for (mac, own, list, wanted) in [
            (C, &[A, B][..], &[][..], &[A, B, C][..]),
            (A, &[A, B], &[], &[A, B]),
            (C, &[A, B], &[B], &[C]),
            (C, &[A], &[A, C], &[]),
        ] {
            assert_eq!(plan_mask(MaskEdit::Add(mac), own, list, 0x0a01), Ok(add(wanted)));
        }
        assert_eq!(plan_mask(MaskEdit::Add(C), &[], &[], 0).unwrap_err().errno, Errno::ENXIO);
    }

    #[test]
    fn deletions_that_do_harm_are_said_twice() {
        let deletion = Ok(vec![Directive { op: MaskOp::Delete, mac: A }]);
        let errno = |edit, list: &[Mac], fw| plan_mask(edit, &[A], list, fw).map_err(|error| error.errno);
        assert_eq!(errno(del(A, false), &[B], 1), Err(Errno::ENOENT));
        assert_eq!(errno(del(A, true), &[B], 0x4019), Err(Errno::ENOENT));
        // Our own, while there are others; the last one opens the target to all.
        assert_eq!(errno(del(A, false), &[A, B], 1), Err(Errno::EINVAL));
        assert_eq!(errno(del(A, true), &[A, B], 1), deletion);
        assert_eq!(errno(del(A, false), &[A], 1), deletion);
        for fw in [0x4000, 0x4019, 0x40ff] {
            assert_eq!(errno(del(B, false), &[A, B], fw), Err(Errno::EOPNOTSUPP));
            assert!(errno(del(B, true), &[A, B], fw).is_ok());
        }
        assert!(errno(del(B, false), &[A, B], 0x4119).is_ok());
    }

    #[test]
    fn what_came_back_is_looked_at() {
        let gone = [Directive { op: MaskOp::Delete, mac: A }];
        assert!(check_mask(&add(&[A, B]), &[B, A, C]).is_ok());
        assert_eq!(check_mask(&add(&[A, B]), &[A, C]).unwrap_err().errno, Errno::EIO);
        assert!(check_mask(&gone, &[B]).is_ok());
        assert!(check_mask(&gone, &[A]).is_err());
        for (error, errno) in [
            (MaskError::Full, Errno::ENOSPC),
            (MaskError::BadDirective, Errno::EOPNOTSUPP),
            (MaskError::Unspecified, Errno::EIO),
            (MaskError::Other(9), Errno::EIO),
        ] {
            assert_eq!(mask_refused(error, gone.first()).errno, errno);
        }
        assert_eq!(mask_refused(MaskError::Full, gone.first()).words, "mask list full, at 02:00:00:00:00:01");
    }

    #[test]
    fn reservations() {
        assert_eq!(plan_reserve(ReserveEdit::Take, &[B, A]), Ok(Reservation::Set(vec![B, A])));
        assert_eq!(plan_reserve(ReserveEdit::Take, &[]).unwrap_err().errno, Errno::ENXIO);
        assert_eq!(plan_reserve(ReserveEdit::Release, &[A]), Ok(Reservation::Set(vec![])));
        assert_eq!(plan_reserve(ReserveEdit::Set(vec![A, B, A]), &[]), Ok(Reservation::Set(vec![A, B])));
        assert_eq!(plan_reserve(ReserveEdit::Force(vec![C]), &[A]), Ok(Reservation::Force(vec![C])));
        assert_eq!(page(&[A, C]), "02:00:00:00:00:01\n02:00:00:00:00:03\n");
        assert_eq!(page(&[]), "");
    }
}
