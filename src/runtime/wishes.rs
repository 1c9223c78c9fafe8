//! Wishes for interfaces that are not bound: which to bind when they come, and which not to bind although all others
//! are bound that come up.

use crate::link::interface;
use crate::link::watch::LinkEvent;

/// Whose wish it is that an interface is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The command line: it holds until the interface is unbound by hand.
    CommandLine,
    /// The configuration file: it holds until the file is read again.
    File,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Names of interfaces that are bound when they come, and whose wish it is.
    wanted: Vec<(String, By)>,
    /// Index and name of those that were unbound by hand; the index is 0 while there is none of that name.
    unwanted: Vec<(u32, String)>,
}

impl Wishes {
    /// It is to be bound when it comes.
    pub(super) fn want(&mut self, name: &str, by: By) {
        if !self.wanted.iter().any(|wanted| *wanted == (name.to_owned(), by)) {
            self.wanted.push((name.to_owned(), by));
        }
    }

    /// The names of those that are to be bound when they come, each once.
    pub(super) fn wanted(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in &self.wanted {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The configuration file is read again: its old lines do not hold any more.
    pub(super) fn forget_wanted(&mut self) {
        self.wanted.retain(|(_, by)| *by == By::CommandLine);
    }

    /// It was unbound by hand, and stays so.
    pub(super) fn refuse(&mut self, index: u32, name: &str, as_said: &str) {
        self.wanted.retain(|(wanted, _)| wanted != name && wanted != as_said);
        self.unwanted.push((index, name.to_owned()));
    }

    /// An interface has gone, and another one may get its index.
    pub(super) fn forget_index(&mut self, index: u32) {
        for (number, _) in self.unwanted.iter_mut().filter(|(number, _)| *number == index) {
            *number = 0;
        }
    }

    /// It may be bound again, if it was unbound by hand.
    pub(super) fn allow(&mut self, name: &str) {
        let index = interface::index_of(name);
        self.unwanted.retain(|(number, called)| called != name && Some(*number) != index);
    }

    /// Whether to bind an interface that has come, or come up. `follow`: all are bound that come up.
    pub(super) fn is_wanted(&mut self, event: &LinkEvent, follow: bool) -> bool {
        let same = |(index, name): &&mut (u32, String)| *index == event.index || *name == event.name;
        if let Some(unwanted) = self.unwanted.iter_mut().find(same) {
            *unwanted = (event.index, event.name.clone());
            return false;
        }
        let called =
            |(name, _): &(String, By)| *name == event.name || interface::index_of(name) == Some(event.index);
        (follow && event.by_default()) || self.wanted.iter().any(called)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Mac;

    fn came(index: u32, name: &str) -> LinkEvent {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let name = name.to_owned();
        LinkEvent { name, index, up: true, mtu: 1500, mac, gone: false, is_port: false, is_ethernet: true }
    }

    #[test]
    fn what_was_unbound_by_hand_stays_so_until_it_is_bound() {
        let mut wishes = Wishes::default();
        assert!(wishes.is_wanted(&came(7, "wish7"), true) && !wishes.is_wanted(&came(7, "wish7"), false));
        wishes.refuse(7, "wish7", "wish7");
        assert!(!wishes.is_wanted(&came(7, "wish7"), true));
        assert!(!wishes.is_wanted(&came(7, "other"), true), "renamed");
        assert!(wishes.is_wanted(&came(8, "wish7"), true), "another under the old name");
        assert!(!wishes.is_wanted(&came(9, "other"), true), "gone and come again");
        assert!(!wishes.is_wanted(&came(9, "third"), true), "and renamed");
        wishes.allow("third");
        assert!(wishes.is_wanted(&came(9, "third"), true));
    }

    #[test]
    fn the_index_of_one_that_is_gone_may_be_anothers() {
        let mut wishes = Wishes::default();
        wishes.refuse(7, "wish7", "wish7");
        wishes.forget_index(7);
        assert!(wishes.is_wanted(&came(7, "stranger"), true));
        assert!(!wishes.is_wanted(&came(8, "wish7"), true), "gone and come again");
        assert!(!wishes.is_wanted(&came(8, "other"), true), "and renamed");
    }

    #[test]
    fn what_the_file_binds_is_bound_when_it_comes() {
        let mut wishes = Wishes::default();
        wishes.want("wish7", By::File);
        assert!(wishes.is_wanted(&came(7, "wish7"), false) && !wishes.is_wanted(&came(8, "wish8"), false));
        wishes.want("lo", By::File);
        let lo = interface::index_of("lo").unwrap();
        assert!(wishes.is_wanted(&came(lo, "by another name"), false));
        wishes.refuse(7, "wish7", "wish7");
        assert!(!wishes.is_wanted(&came(7, "wish7"), false));
        wishes.allow("wish7");
        wishes.want("wish7", By::File);
        wishes.forget_wanted();
        assert!(!wishes.is_wanted(&came(7, "wish7"), false));
    }

    #[test]
    fn what_the_command_line_names_is_wanted_until_it_is_unbound_by_hand() {
        let mut wishes = Wishes::default();
        wishes.want("wish7", By::CommandLine);
        wishes.want("wish7", By::File);
        wishes.forget_wanted();
        wishes.allow("wish7");
        assert!(wishes.is_wanted(&came(7, "wish7"), false) && wishes.is_wanted(&came(8, "wish7"), false));
        assert_eq!(wishes.wanted(), ["wish7"]);
        wishes.refuse(8, "wish7", "wish7");
        wishes.allow("wish7");
        assert!(!wishes.is_wanted(&came(9, "wish7"), false) && wishes.wanted().is_empty());
    }
}
