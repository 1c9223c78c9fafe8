//! The back end of the file system: interfaces, or the demo's disk. It is opened while the privileges for it are still
//! there, and before anything is mounted: a missing interface, privilege or image ends the start with one line and
//! leaves nothing behind.

use std::fmt;
use std::io;

use crate::cli::{Network, Options};
use crate::daemon::privilege;
use crate::failure::Failure;
use crate::link::is_gone;
use crate::link::packet::{PacketLink, Role};
use crate::link::watch;
use crate::target::{FileImage, Image, MemoryImage, Open, OpenError};
use crate::wire::SECTOR;

/// Interfaces, or the disk of the demo.
pub enum Backend {
    /// Interfaces, opened and bound.
    Links {
        /// One for each interface that is usable now.
        links: Vec<PacketLink>,
        /// Named by -i and not there yet: they are bound when they come.
        late: Vec<String>,
        /// No -i was given: interfaces that come up or appear later are used, too.
        follow: bool,
    },
    /// The back end of the built-in target.
    Demo(Box<dyn Image>),
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::Links { links, late, follow } => {
                write!(f, "{} links, {} late, follow {follow}", links.len(), late.len())
            }
            Backend::Demo(image) => write!(f, "demo of {} sectors", image.sectors()),
        }
    }
}

impl Backend {
    /// Opens the interfaces, or the image, that the options name.
    pub fn open(options: &Options) -> Result<Self, Failure> {
        match &options.network {
            Network::Only(names) => {
                if !names.is_empty() {
                    may_send()?;
                }
                let (mut links, mut late) = (Vec::new(), Vec::new());
                for name in names {
                    match PacketLink::open(name, Role::Initiator) {
                        Ok(link) => links.push(link),
                        // A VLAN, a bond or a slow driver: at boot it may come any time later.
                        Err(error) if is_gone(&error) => late.push(name.clone()),
                        Err(error) => return Err(refused(name, &error)),
                    }
                }
                Ok(Backend::Links { links, late, follow: false })
            }
            Network::All => {
                may_send()?;
                Ok(Backend::Links { links: all_links()?, late: Vec::new(), follow: true })
            }
            Network::Demo(bytes) => {
                let image = MemoryImage::new(bytes / SECTOR as u64);
                Ok(Backend::Demo(match options.mount.read_only {
                    true => Box::new(image.into_read_only()),
                    false => Box::new(image),
                }))
            }
            Network::DemoImage(path) => {
                let how = Open { read_only: options.mount.read_only, ..Open::default() };
                match FileImage::open(path, &how) {
                    Ok(image) => Ok(Backend::Demo(Box::new(image))),
                    Err(OpenError::Missing(path)) => Err(Failure::start(format!(
                        "--demo-image {0}: no such file; make one with: truncate -s 64M {0}",
                        path.display()
                    ))),
                    Err(OpenError::System(path, action, why)) => Err(Failure::start(format!(
                        "--demo-image {}: {action}: {why}; name a file or block device that can be read and written",
                        path.display()
                    ))),
                    Err(error) => Err(Failure::start(format!("--demo-image {error}"))),
                }
            }
        }
    }
}

/// Every Ethernet interface that is up. An interface that goes before it is opened is left out.
fn all_links() -> Result<Vec<PacketLink>, Failure> {
    let found = watch::ethernet_interfaces()
        .map_err(|error| Failure::start(format!("cannot list the interfaces: {error}; name them with -i")))?;
    let mut links = Vec::with_capacity(found.len());
    for interface in found {
        match PacketLink::open(&interface.name, Role::Initiator) {
            Ok(link) => links.push(link),
            Err(error) => log::warn!("{}: {error}; not using it", interface.name),
        }
    }
    Ok(links)
}

/// Without the privilege no interface could ever be used. The start says so, even if there is no interface now.
fn may_send() -> Result<(), Failure> {
    privilege::check_net_raw().map_err(|error| Failure::start(error.to_string()))
}

fn refused(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::Unsupported => {
            Failure::start(format!("{name} is no Ethernet interface, and AoE needs one; see: ip link"))
        }
        _ => Failure::start(format!("cannot use interface {name}: {error}; see: ip link show {name}")),
    }
}
