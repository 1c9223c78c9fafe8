//! All paths to one target: which there are, how many there may be, and by which of them a frame leaves.

use std::time::Duration;

use super::ids::{NetId, PathId};
use super::limits::{PATHS_MAX, SILENCE};
use super::path::{Path, Trust};
use super::settings::Settings;
use super::time::Time;
use crate::wire::Mac;

/// Netlinks that one target is reached by.
const NETS_MAX: usize = 6;
/// MACs of one target that are used on one netlink.
const MACS_MAX: usize = 6;
/// Unproven paths at a time: announcements can be forged, and each costs an IDENTIFY.
const PROVING_MAX: usize = 6;
/// A path joins in only while its round trip is at most this many times the fastest one's, and this much longer:
/// else every request would wait for its slowest frame.
const SLOWER: u32 = 4;
const SLOWER_BY: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub struct Paths {
    /// A path keeps its place for as long as it exists: the place is its id.
    places: Vec<Option<Path>>,
}

impl Paths {
    /// The path by which the target was found.
    pub fn new(first: Path) -> Paths {
        Paths { places: vec![Some(first)] }
    }

    /// The path with this id, if it is there.
    pub fn get(&self, id: PathId) -> Option<&Path> {
        self.places.get(usize::from(id.0))?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: PathId) -> Option<&mut Path> {
        self.places.get_mut(usize::from(id.0))?.as_mut()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (PathId, &Path)> {
        self.places.iter().enumerate().filter_map(|(i, p)| Some((PathId(i as u8), p.as_ref()?)))
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().flatten()
    }

    /// Every id that a path can have now.
    pub fn places(&self) -> impl Iterator<Item = PathId> + use<> {
        (0..self.places.len()).map(|i| PathId(i as u8))
    }

    /// The ids of those that `wanted` says.
    pub fn ids(&self, wanted: impl Fn(PathId, &Path) -> bool) -> Vec<PathId> {
        self.iter().filter(|(id, p)| wanted(*id, p)).map(|(id, _)| id).collect()
    }

    /// Is there no path?
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Is there more than one place for a path? Then another path may lead to another disk than this one does.
    pub fn several(&self) -> bool {
        self.places.len() > 1
    }

    /// The path over this netlink to this MAC.
    pub fn find(&self, net: NetId, mac: Mac) -> Option<PathId> {
        self.iter().find(|(_, p)| p.net == net && p.mac == mac).map(|(id, _)| id)
    }

    /// May one more path over this netlink be proven?
    pub fn has_room(&self, net: NetId) -> bool {
        let proving = self.all().filter(|p| p.trust == Trust::Proving).count();
        let here = self.on(net);
        let mut nets: Vec<NetId> = self.all().map(|p| p.net).collect();
        nets.sort_unstable();
        nets.dedup();
        let full = here >= MACS_MAX || (here == 0 && nets.len() >= NETS_MAX);
        proving < PROVING_MAX && !full && self.all().count() < PATHS_MAX
    }

    fn on(&self, net: NetId) -> usize {
        self.all().filter(|p| p.net == net).count()
    }

    /// The path that gives way to one over this netlink that has answered a query: one that was only announced.
    pub fn gives_way(&self, net: NetId) -> Option<PathId> {
        // Where this netlink has too many paths, it must be one of these.
        let here = self.on(net) >= MACS_MAX;
        let wanted = |p: &Path| p.trust == Trust::Proving && p.only_announced && (!here || p.net == net);
        self.iter().find(|(_, p)| wanted(p)).map(|(id, _)| id)
    }

    /// Adds a path.
    pub fn add(&mut self, path: Path) -> PathId {
        let free = match self.places.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        self.places[free] = Some(path);
        PathId(free as u8)
    }

    /// Takes a path out.
    pub fn remove(&mut self, id: PathId) -> Option<Path> {
        let path = self.places.get_mut(usize::from(id.0)).and_then(Option::take);
        while self.places.len() > 1 && self.places.last().is_some_and(Option::is_none) {
            self.places.pop();
        }
        path
    }

    /// Frames outstanding over all paths.
    pub fn inflight(&self) -> u32 {
        self.all().map(|p| p.window.inflight()).sum()
    }

    /// Is there a path that can carry new work?
    pub fn any_usable(&self) -> bool {
        self.all().any(Path::usable)
    }

    /// Is there another path that led to the disk that we know?
    pub fn others_known(&self, path: PathId) -> bool {
        self.iter().any(|(id, p)| id != path && p.trust != Trust::Proving)
    }

    /// The largest round trip of the last minutes over any path.
    pub fn slowest(&self) -> Duration {
        self.all().map(|p| p.rtt.largest()).max().unwrap_or_default()
    }

    /// The target came back: what it took before means nothing.
    pub fn restart(&mut self) {
        self.places.iter_mut().flatten().for_each(Path::restart);
    }

    /// Is this one of the target's MACs? A target with several ports may answer from another one than it was asked
    /// at. But a MAC that has not proven itself answers for itself only: that a frame for it reached the target all
    /// the same (a switch floods what it does not know) proves nothing about who owns the MAC.
    pub fn knows(&self, mac: Mac, asked: Option<PathId>) -> bool {
        match asked.and_then(|id| self.get(id)) {
            Some(path) if path.trust == Trust::Proving => path.mac == mac,
            _ => self.all().any(|p| p.mac == mac && p.trust != Trust::Proving),
        }
    }

    /// Is there a path for a frame of so many sectors? If none can be used now, is there one that could be later?
    pub fn carries(&self, sectors: u8, settings: &Settings) -> bool {
        let fits = |p: &Path| p.sectors(settings) >= sectors;
        if sectors <= 1 {
            true
        } else if self.any_usable() {
            self.all().any(|p| p.usable() && fits(p))
        } else {
            self.all().any(fits)
        }
    }

    /// The best path with room for a frame of `whole` sectors, another one than `avoid` if there is one.
    pub fn choose(&self, now: Time, avoid: Option<PathId>, whole: u8, settings: &Settings) -> Option<PathId> {
        if let [Some(only)] = &self.places[..] {
            return (only.up && only.trust != Trust::Proving && only.window.has_room()).then_some(PathId(0));
        }
        // Behind a path that was silent while others answered, another disk may have taken this one's address.
        let any_fresh = self.all().any(|p| p.usable() && now.since(p.last_heard) <= SILENCE);
        let fresh = |p: &Path| !any_fresh || now.since(p.last_heard) <= SILENCE;
        let large = |p: &Path| whole <= 1 || p.sectors(settings) >= whole;
        let willing =
            |p: &Path| (p.usable() && fresh(p)) || (p.up && p.trust == Trust::Tainted && !self.any_usable());
        let fits = |p: &Path| large(p) && willing(p);
        let fastest = self.all().filter(|p| fits(p)).filter_map(|p| p.rtt.smoothed()).min();
        let too_slow = |p: &Path| match (p.rtt.smoothed(), fastest) {
            (Some(rtt), Some(best)) => rtt > best * SLOWER && rtt > best + SLOWER_BY,
            _ => false,
        };
        let cost = |p: &Path| p.rtt.smoothed().unwrap_or_default() * (p.window.inflight() + 1);
        self.iter()
            .filter(|(_, p)| fits(p) && p.window.has_room())
            .filter(|(id, p)| !too_slow(p) || avoid.is_some_and(|a| a != *id))
            .min_by_key(|(id, p)| (avoid == Some(*id), cost(p)))
            .map(|(id, _)| id)
    }

    /// The best path for a frame that does not wait for room, another one than `avoid` if there is one. `unproven`:
    /// where no path is left that is known to lead to the disk, one that may lead there will do.
    pub fn choose_outside(&self, avoid: Option<PathId>, unproven: bool) -> Option<PathId> {
        self.iter()
            .filter(|(_, p)| p.up && (unproven || p.trust != Trust::Proving))
            .min_by_key(|(id, p)| {
                let doubts = (p.trust == Trust::Proving, p.trust == Trust::Tainted);
                (doubts, avoid == Some(*id), p.rtt.smoothed())
            })
            .map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::FrameId;

    const NOW: Time = Time(5_000_000);

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn path(net: u16, n: u8, trust: Trust, rtt: Duration) -> Path {
        let mut path = Path::new(NetId(net), mac(n), 9000, 16, trust, NOW);
        path.rtt.sample(NOW, rtt);
        path
    }

    /// Paths over netlink 0 to the MACs 0, 1, 2 … with these round trips, in µs.
    fn paths(trips: &[u64]) -> Paths {
        let mut all =
            trips.iter().zip(0..).map(|(us, n)| path(0, n, Trust::Active, Duration::from_micros(*us)));
        let mut paths = Paths::new(all.next().unwrap());
        all.for_each(|p| _ = paths.add(p));
        paths
    }

    fn choose(paths: &Paths, avoid: Option<u8>, whole: u8) -> Option<u8> {
        paths.choose(NOW, avoid.map(PathId), whole, &Settings::default()).map(|id| id.0)
    }

    fn fill(paths: &mut Paths, id: u8, frames: u32) {
        for frame in 0..frames {
            paths.get_mut(PathId(id)).unwrap().depart(FrameId(frame), true, NOW);
        }
    }

    #[test]
    fn the_path_with_the_shortest_wait_is_chosen() {
        let mut p = paths(&[100, 150]);
        assert_eq!(choose(&p, None, 0), Some(0));
        fill(&mut p, 0, 1);
        assert_eq!(choose(&p, None, 0), Some(1), "150 µs are less than twice 100");
        assert_eq!(p.inflight(), 1);
        assert_eq!(choose(&p, Some(1), 0), Some(0), "a frame that was lost goes another way");
    }

    #[test]
    fn a_path_that_is_much_slower_is_left_out_even_if_the_fast_one_is_full() {
        let mut p = paths(&[100, 5000]);
        let room = p.get(PathId(0)).unwrap().window.size();
        fill(&mut p, 0, room);
        assert_eq!(choose(&p, None, 0), None);
        assert_eq!(choose(&p, Some(0), 0), Some(1), "but not for what the fast one has lost");
    }

    #[test]
    fn the_only_path_is_taken_though_it_is_silent() {
        let mut p = paths(&[100]);
        p.get_mut(PathId(0)).unwrap().taint(NOW);
        assert_eq!(choose(&p, None, 0), Some(0));
        p.get_mut(PathId(0)).unwrap().trust = Trust::Proving;
        assert_eq!(choose(&p, None, 0), None, "it may lead to another disk");
    }

    #[test]
    fn of_several_paths_one_that_was_heard_lately_is_chosen() {
        let mut p = paths(&[100, 400]);
        p.get_mut(PathId(0)).unwrap().last_heard = Time(0);
        assert_eq!(choose(&p, None, 0), Some(1));
        p.get_mut(PathId(1)).unwrap().last_heard = Time(0);
        assert_eq!(choose(&p, None, 0), Some(0), "all were silent: none is better than another");
        p.get_mut(PathId(0)).unwrap().taint(NOW);
        assert_eq!(choose(&p, None, 0), Some(1));
        p.get_mut(PathId(1)).unwrap().up = false;
        assert_eq!(choose(&p, None, 0), Some(0), "it is silent, but there is no other");
    }

    #[test]
    fn a_frame_that_cannot_be_split_goes_where_it_fits() {
        let mut p = paths(&[100, 400]);
        p.get_mut(PathId(0)).unwrap().mtu = 1500;
        assert_eq!(choose(&p, None, 16), Some(1));
        assert!(p.carries(16, &Settings::default()) && !p.carries(17, &Settings::default()));
        p.get_mut(PathId(1)).unwrap().up = false;
        assert_eq!(choose(&p, None, 16), None);
        assert!(!p.carries(16, &Settings::default()), "a smaller one can be used now");
        p.get_mut(PathId(0)).unwrap().up = false;
        assert!(p.carries(16, &Settings::default()), "the large one may come back");
    }

    #[test]
    fn what_does_not_wait_for_room_goes_by_the_path_with_the_fewest_doubts() {
        let mut p = paths(&[100, 200, 300]);
        let outside = |p: &Paths, avoid: Option<u8>, unproven| p.choose_outside(avoid.map(PathId), unproven);
        assert_eq!(outside(&p, None, false), Some(PathId(0)));
        assert_eq!(outside(&p, Some(0), false), Some(PathId(1)));
        p.get_mut(PathId(0)).unwrap().taint(NOW);
        p.get_mut(PathId(1)).unwrap().trust = Trust::Proving;
        assert_eq!(outside(&p, None, true), Some(PathId(2)));
        p.remove(PathId(2));
        assert_eq!(outside(&p, None, true), Some(PathId(0)));
        p.get_mut(PathId(0)).unwrap().up = false;
        assert_eq!(outside(&p, None, true), Some(PathId(1)));
        assert_eq!(outside(&p, None, false), None);
    }

    #[test]
    fn there_are_six_macs_on_a_netlink_and_six_netlinks() {
        let mut p = paths(&[1]);
        (1..6).for_each(|n| _ = p.add(path(0, n, Trust::Active, Duration::ZERO)));
        assert!(!p.has_room(NetId(0)) && p.has_room(NetId(1)));
        (1..6).for_each(|net| _ = p.add(path(net, 0, Trust::Active, Duration::ZERO)));
        assert!(!p.has_room(NetId(6)) && p.has_room(NetId(5)));
    }

    #[test]
    fn a_path_that_was_only_announced_gives_way() {
        let mut p = paths(&[1]);
        for n in 1..=6 {
            let mut announced = path(1, n, Trust::Proving, Duration::ZERO);
            announced.only_announced = n != 1;
            p.add(announced);
        }
        assert!(!p.has_room(NetId(0)), "six are being proven");
        assert_eq!(p.gives_way(NetId(0)), Some(PathId(2)), "the first one has answered a query");
        (7..=11).for_each(|n| _ = p.add(path(2, n, Trust::Active, Duration::ZERO)));
        p.add(path(2, 12, Trust::Proving, Duration::ZERO));
        assert_eq!(p.gives_way(NetId(2)), None, "netlink 2 is full, and of its own none was only announced");
    }

    #[test]
    fn an_unproven_mac_answers_for_itself_only() {
        let mut p = paths(&[1, 1]);
        let proving = p.add(path(0, 2, Trust::Proving, Duration::ZERO));
        assert!(p.knows(mac(1), Some(PathId(0))), "another port of the target");
        assert!(p.knows(mac(2), Some(proving)) && !p.knows(mac(1), Some(proving)));
        assert!(!p.knows(mac(2), Some(PathId(0))) && !p.knows(mac(9), None));
        assert!(p.others_known(PathId(0)));
        p.remove(PathId(1));
        assert!(!p.others_known(PathId(0)));
    }

    #[test]
    fn a_path_keeps_its_id_and_a_free_one_is_used_again() {
        let mut p = paths(&[1, 2, 3]);
        assert_eq!(p.remove(PathId(1)).map(|p| p.mac), Some(mac(1)));
        assert!(p.get(PathId(1)).is_none() && p.remove(PathId(1)).is_none());
        assert_eq!(p.find(NetId(0), mac(2)), Some(PathId(2)));
        assert_eq!(p.add(path(3, 9, Trust::Active, Duration::ZERO)), PathId(1));
        for id in [0, 1, 2] {
            assert!(p.remove(PathId(id)).is_some());
        }
        assert!(p.is_empty() && !p.several());
    }
}
