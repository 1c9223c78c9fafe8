//! `aoefs ping`: round trips to a target, as aoeping(8) measures them. Over an interface a config query and its answer
//! are timed; over a mount the command `config prefix`, which asks the same by the path that the daemon chooses.

use std::thread;
use std::time::{Duration, Instant};

use super::mounts::Mount;
use super::station::{self, Station};
use super::{ctl, print};
use crate::cli::Via;
use crate::failure::Failure;
use crate::top::units;
use crate::wire::{Addr, Mac, Verb};

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Round trips of a run; none where no answer came.
#[derive(Default)]
struct Trips(Vec<Option<Duration>>);

/// Measures. False if no answer came at all.
pub fn run(addr: Addr, via: &Via, count: u32, interval: Duration) -> Result<bool, Failure> {
    let trips = match via {
        Via::Mount(point) => over_mount(&Mount::one(point.as_deref())?, addr, count, interval)?,
        Via::Interfaces(names) => {
            let mut stations = station::open_all(names)?;
            let (n, heard) = station::locate(&mut stations, addr)?;
            let station = &mut stations[n];
            let (mac, name) = (heard.header.src, station.name());
            let said = format!("{addr} at {mac} via {name}");
            measure(&said, count, interval, || over_wire(station, mac, addr))?
        }
    };
    print(&format!("{trips}\n"))?;
    Ok(trips.0.iter().any(Option::is_some))
}

fn over_mount(mount: &Mount, addr: Addr, count: u32, interval: Duration) -> Result<Trips, Failure> {
    let file = format!("{addr}/ctl");
    // A target that is not there, or a file that may not be written, is said at once and not once a question.
    mount.read(&file)?;
    let writable = std::fs::File::options().write(true).open(mount.path(&file));
    writable.map_err(|error| mount.explain(&file, &error))?;
    measure(&format!("{addr} via {}", mount.point.display()), count, interval, || {
        let start = Instant::now();
        // Every string begins with the empty one.
        Ok(ctl::write(mount, &file, "config prefix ").ok().map(|()| start.elapsed()))
    })
}

fn over_wire(station: &mut Station, mac: Mac, addr: Addr) -> Result<Option<Duration>, Failure> {
    let start = Instant::now();
    let tag = station.ask_config(mac, addr, Verb::Read, &[])?;
    while let Some(heard) = station.next(start + PATIENCE)? {
        if heard.header.tag == tag && heard.header.addr == addr {
            return Ok(Some(heard.at.duration_since(start)));
        }
    }
    Ok(None)
}

fn measure(
    whom: &str,
    count: u32,
    interval: Duration,
    mut once: impl FnMut() -> Result<Option<Duration>, Failure>,
) -> Result<Trips, Failure> {
    let mut trips = Trips::default();
    for n in 1..=count {
        let start = Instant::now();
        let trip = once()?;
        let said = trip.map_or("no answer".into(), |trip| units::seconds(Some(trip.as_secs_f64())));
        print(&format!("{whom}: {n} of {count}: {said}\n"))?;
        trips.0.push(trip);
        if n < count {
            thread::sleep(interval.saturating_sub(start.elapsed()));
        }
    }
    Ok(trips)
}

impl std::fmt::Display for Trips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answered: Vec<f64> = self.0.iter().flatten().map(Duration::as_secs_f64).collect();
        let lost = (self.0.len() - answered.len()) * 100 / self.0.len().max(1);
        write!(f, "{} asked, {} answered, {lost} % lost", self.0.len(), answered.len())?;
        let least = answered.iter().copied().reduce(f64::min);
        let most = answered.iter().copied().reduce(f64::max);
        let (Some(least), Some(most)) = (least, most) else {
            return f
                .write_str("; is the target up? see: aoefs status, or aoefs check -i with its interface");
        };
        let mean = answered.iter().sum::<f64>() / answered.len() as f64;
        let [least, mean, most] = [least, mean, most].map(|s| units::seconds(Some(s)));
        write!(f, "; round trip min/avg/max {least}/{mean}/{most}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_names_least_mean_and_most() {
        let ms = |n| Some(Duration::from_millis(n));
        let trips = Trips(vec![ms(1), None, ms(3), ms(2)]);
        assert_eq!(
            trips.to_string(),
            "4 asked, 3 answered, 25 % lost; round trip min/avg/max 1.00ms/2.00ms/3.00ms"
        );
        assert!(
            Trips(vec![None]).to_string().starts_with("1 asked, 0 answered, 100 % lost; is the target up?")
        );
    }
}
