//! The configuration file (docs/design.md#the-command-language): read whole at start and on SIGHUP. Its lines are
//! those of the ctl files, a target's with its address in front, and the ctl parser reads them. A line that is wrong
//! is reported with file and line; the others apply.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::cli::Config;
use crate::failure::Failure;
use crate::fs::ctl::{ConfigLine, Top, UnitCommand, needs_network, parse_config};
use crate::wire::Addr;

/// A file longer than this, in bytes, is not a configuration: 4096 targets with ten lines each have less.
const LENGTH_MAX: u64 = 4 << 20;

/// A command, and the number of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<T> {
    /// From 1.
    pub number: usize,
    /// The command.
    pub command: T,
}

/// The lines of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    top: Vec<Line<Top>>,
    units: Vec<(Addr, Line<UnitCommand>)>,
    complaints: Vec<String>,
}

/// Reads the file. A file that is not there is an error only if it was named; else it counts as empty.
pub fn read(config: &Config) -> Result<ConfigFile, Failure> {
    match load(&config.path) {
        Ok(text) => Ok(ConfigFile::parse(&config.path, &text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !config.named => {
            Ok(ConfigFile { path: config.path.clone(), ..ConfigFile::default() })
        }
        Err(error) => Err(Failure::start(format!(
            "cannot read the configuration {}: {error}; name a readable file with -c",
            config.path.display()
        ))),
    }
}

fn load(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LENGTH_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LENGTH_MAX {
        return Err(io::Error::other(format!("longer than {} MiB", LENGTH_MAX >> 20)));
    }
    Ok(text)
}

impl ConfigFile {
    fn parse(path: &Path, text: &[u8]) -> Self {
        let (good, bad) = parse_config(text);
        let mut file = Self { path: path.into(), ..Self::default() };
        for (number, line) in good {
            match line {
                ConfigLine::Top(command) => file.top.push(Line { number, command }),
                ConfigLine::Unit(addr, command) => file.units.push((addr, Line { number, command })),
            }
        }
        file.complaints =
            bad.into_iter().map(|(number, error)| format!("{}: {error}", file.origin(number))).collect();
        file
    }

    /// `FILE:LINE`, the beginning of every message about a line.
    pub fn origin(&self, number: usize) -> String {
        format!("{}:{number}", self.path.display())
    }

    /// One message for each line that is wrong.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// The commands for the top ctl, in the order of the file.
    pub fn top(&self) -> &[Line<Top>] {
        &self.top
    }

    /// The lines for one target that need no answer from it: they are run before its directory becomes visible.
    pub fn before_visible(&self, addr: Addr) -> impl Iterator<Item = &Line<UnitCommand>> {
        self.lines_for(addr).filter(|line| !needs_network(&line.command))
    }

    /// The lines for one target that ask it something: they are run once it is up.
    pub fn once_up(&self, addr: Addr) -> impl Iterator<Item = &Line<UnitCommand>> {
        self.lines_for(addr).filter(|line| needs_network(&line.command))
    }

    /// The targets that it has lines for, each once.
    pub fn targets(&self) -> Vec<Addr> {
        let mut targets: Vec<Addr> = self.units.iter().map(|(addr, _)| *addr).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// The line that `--check-config` prints for a file without errors.
    pub fn summary(&self) -> String {
        format!(
            "{}: no errors (commands: {} for the top ctl, {} for targets)",
            self.path.display(),
            self.top.len(),
            self.units.len()
        )
    }

    fn lines_for(&self, addr: Addr) -> impl Iterator<Item = &Line<UnitCommand>> {
        self.units.iter().filter(move |(target, _)| *target == addr).map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"# what the manual shows\n\
        bind eth1\n\
        \n\
        1.0 part boot 2048 1050624\n\
        frobnicate\n\
        7.254 nofail on\n\
        1.0 identify\n\
        1.0 nofail perhaps\n\
        1.0 deadline 20\n\
        1.0 \xff\n";

    #[test]
    fn good_lines_apply_and_bad_ones_are_named() {
        let file = ConfigFile::parse(Path::new("/etc/aoefs.conf"), TEXT);
        assert_eq!(file.top(), [Line { number: 2, command: Top::Bind("eth1".into()) }]);
        assert_eq!(file.targets(), [Addr::new(1, 0), Addr::new(7, 254)]);
        let numbers =
            |lines: Vec<&Line<UnitCommand>>| lines.iter().map(|line| line.number).collect::<Vec<_>>();
        assert_eq!(numbers(file.before_visible(Addr::new(1, 0)).collect()), [4, 9]);
        assert_eq!(numbers(file.once_up(Addr::new(1, 0)).collect()), [7]);
        assert_eq!(numbers(file.before_visible(Addr::new(7, 254)).collect()), [6]);
        assert!(numbers(file.before_visible(Addr::new(2, 0)).collect()).is_empty());
        let origins: Vec<_> = file.complaints().iter().map(|text| text.split(": ").next().unwrap()).collect();
        assert_eq!(origins, ["/etc/aoefs.conf:5", "/etc/aoefs.conf:8", "/etc/aoefs.conf:10"]);
    }

    #[test]
    fn only_a_named_file_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aoefs.conf");
        let file = read(&Config { path: path.clone(), named: false }).unwrap();
        assert!(file.top().is_empty() && file.targets().is_empty());
        assert!(
            read(&Config { path: path.clone(), named: true }).unwrap_err().to_string().contains("aoefs.conf")
        );
        assert!(read(&Config { path: dir.path().into(), named: false }).is_err());
        std::fs::write(&path, "bind eth1\n").unwrap();
        assert!(
            read(&Config { path: path.clone(), named: true }).unwrap().summary().contains("1 for the top")
        );
        File::create(&path).unwrap().set_len(LENGTH_MAX + 1).unwrap();
        assert!(read(&Config { path, named: true }).unwrap_err().to_string().contains("longer than 4 MiB"));
    }
}
