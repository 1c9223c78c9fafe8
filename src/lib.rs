//! aoefs: ATA-over-Ethernet targets as plain files. This page is the map; `docs/design.md` says why things are so, and
//! the manual, `man/aoefs.8`, describes the behaviour for users. Paths are those below `src/`.
//!
//! # Rooms
//!
//! ```text
//! main.rs ─▶ app ─┬─▶ cli
//!                 ├─▶ fs ─────┬─▶ runtime ─┬─▶ engine ─▶ wire
//!                 │           │            └─▶ link ───▶ wire
//!                 │           ├─▶ vhost ─────▶ engine
//!                 │           └─▶ parttable ───────────▶ wire
//!                 ├─▶ scrape
//!                 ├─▶ export ─┬─▶ target ──────────────▶ wire
//!                 │           └─▶ link ────────────────▶ wire
//!                 └─▶ daemon ───▶ mount
//! main.rs ─▶ command ─┬─▶ cli, mount, top
//!                     └─▶ link ──────────────────────▶ wire
//! ```
//!
//! An arrow means "may name". None leads up or in a circle; `tests/tidy.rs` has all of them in a table and keeps it so.
//! `bin/aoefs-target.rs` puts export, target, link and daemon together, `bin/aoefs-top` uses top.
//!
//! * `wire`: bytes and their meaning: header, ATA, config, mask, reserve, IDENTIFY, TRIM; allocates nothing.
//! * `engine`: the initiator as state machines, without clock, socket, thread or lock: `Device` is one target,
//!   `Discovery` finds them.
//! * `link`: frames in and out of an interface or of the wire in memory (demo, tests), and what happens to
//!   interfaces.
//! * `runtime`: what drives the engine: clock, locks, netlinks, sweeper, alarms, the log that the file `log` shows.
//! * `fs`: the files: names and inodes, handles, each kind of file, the ctl language, status pages, replies to the
//!   kernel.
//! * `scrape`: the metrics over HTTP; knows nothing of what is on the page.
//! * `parttable`: GPT and MBR, read without doing any I/O.
//! * `vhost`: disks for virtual machines: sockets, front ends and their queues; `fs` says what is behind one.
//! * `target`: an AoE target as a pure command processor, and its images: memory, file, block device.
//! * `export`: serves such a target on links.
//! * `mount`: mount(2), fusermount3, dead mounts, and the processes that keep a mount busy; knows nothing of AoE.
//! * `daemon`: background, signals, stopping, the unmounter, privileges, system calls, stderr and syslog,
//!   panics.
//! * `cli`: the command line.
//! * `command`: `aoefs status` and the other commands beside the mounting form: they use the files of a mount, or ask
//!   targets with `wire` and `link` alone.
//! * `app`: the start: interfaces or demo, configuration file, from a mount that stands to its end.
//! * `top`: the part of aoefs-top that needs no terminal.
//! * `failure`, `near`, `allowance`, `bug`: one line for the terminal with its exit code; what a message says of names;
//!   how many log lines of one kind may come; places where a test lets the program panic.
//!
//! # Where to look
//!
//! In `engine`, the file of an idea has its state and its rules, and the file of the same name in `engine/device` what
//! a device does with them.
//!
//! * Wrong or old bytes are read, a write is lost or undone: `engine/locks.rs` (order, late attempts),
//!   `engine/ahead.rs` (read ahead), `fs/notify/pages.rs` (the kernel's pages; which opens have any:
//!   `fs/file/disk.rs`). In a gap that a truncation left: `fs/file/disk/truncation.rs`. By copy_file_range(2):
//!   `fs/file/disk/copy.rs`.
//! * ESTALE where it should not be, or another disk is not noticed: `engine/device/identity.rs`. What may leave
//!   while the disk is in doubt: `engine/doubt.rs`. After the machine slept (suspend): `runtime/clock.rs` notices,
//!   `engine/device/sleep.rs` asks. A disk that grew, and the operator's word for it: `engine/device/growth.rs`.
//! * A wrong name, size, mode or inode: `fs/tree.rs`. A wrong partition: `engine/partition.rs`, `parttable/mod.rs`.
//! * No answer, or one after the deadline: `engine/device/sweep.rs` (what is due), `runtime/sweeper.rs` (when it is
//!   done).
//! * One program reads slowly: `engine/ahead.rs` (what is read ahead of it). The largest request of the kernel:
//!   `fs/limits.rs`, `mount/mod.rs`.
//! * All is slow; frames are sent again too often or too late: `engine/rtt.rs` (when), `engine/path.rs` (what was
//!   overtaken), `engine/window.rs` (how many), `runtime/outbox.rs` (in which order); by the wrong path:
//!   `engine/paths.rs`; the frame size: `engine/ladder.rs`.
//! * A target is not found: `engine/discovery.rs`; its answers do not come: the filter in `link/packet.rs`.
//! * An interface is lost, renamed, or not seen to come back: `link/watch.rs`, `link/packet.rs`,
//!   `runtime/watcher.rs`; not bound when it comes: `runtime/wishes.rs`, `runtime/bind.rs`.
//! * A good frame is refused, or a bad one taken: `wire/header.rs`, `wire/ata.rs`; lengths and counts:
//!   `wire/config.rs`, `wire/mask.rs`, `wire/reserve.rs`; one of another interface: the filter in `link/packet.rs`;
//!   does it fit what was asked: `engine/device/receive.rs`.
//! * A file does something wrong when it is read, written, truncated, polled or closed: `fs/file.rs` lists the
//!   kinds, each has a file of its own in `fs/file/`; it cannot be opened: `fs/core/opening.rs`. A page of text
//!   takes too much memory: `fs/kept.rs`.
//! * A command is refused or does something else: its words: `fs/ctl.rs` for the top ctl, `fs/ctl/unit.rs` for a
//!   target's, `fs/ctl/line.rs` for the form of names and numbers; what it does: `fs/file/ctl.rs`, then
//!   `runtime/mod.rs`, `engine/device/settings.rs` and, for `part` and `partscan`, `engine/partition.rs`,
//!   `fs/file/ctl/partscan.rs`.
//! * A wrong errno: `fs/errno.rs`.
//! * fsync(2) lies or fails: `engine/flushing.rs` (what a refusal means), `engine/device/flush.rs` (what is done);
//!   which open files are told of it: `fs/file/disk.rs`. TRIM: `engine/device/submit.rs`; what fallocate(2) makes
//!   of it: `fs/file/disk/allocate.rs`.
//! * A virtual machine's disk: `vhost/device.rs` (its queues), `vhost/device/messages.rs` (its front end's
//!   messages), `vhost/request.rs` (what it asks for), `vhost/chain.rs` (what it may not do), `vhost/server.rs`
//!   (connections), `fs/file/disk/guest.rs` (what is behind), `vhost/exports.rs` (which front ends are told of a
//!   new size). It hangs, or repeats requests, after it has connected again: `vhost/inflight.rs`, `vhost/ring.rs`.
//! * A command of the file `raw`: `fs/file/raw/machine.rs` (the conversation), `fs/file/raw/machine/scsi.rs` (SCSI
//!   as ATA), `wire/effect.rs` (may it be repeated?), `engine/device/submit.rs` (is it held to that?).
//! * A wrong figure: `fs/metrics/families.rs` (which field a metric shows), `engine/stats.rs`, `engine/path.rs` and
//!   `runtime/netlink.rs` (the fields), `fs/stats.rs`, `top/report.rs`. A line is missing: `runtime/events.rs` (the
//!   file `log`), `daemon/logging.rs` (stderr), `daemon/syslog.rs`.
//! * The metrics do not come over HTTP: `scrape.rs`.
//! * A mount that stays, or users that wait, after the daemon was killed: `daemon/unmounter.rs`. A hang at its
//!   orderly end: `daemon/stop.rs`. What mount(2) and umount(2) do: `mount/mod.rs`. Two starts on one directory:
//!   `mount/place.rs`.
//! * It does not start, or with the wrong rights: `main.rs` (the order), `app/backend.rs`, `mount/error.rs`,
//!   `daemon/privilege.rs`. A system call fails that should not (EPERM, ENOSYS): `daemon/seccomp.rs`.
//! * `aoefs status`, `check` and so on say what is not so: the command's file in `command`; what `check` looks at:
//!   `command/facts.rs`; frames without a mount: `command/station.rs`.
//! * The demo or aoefs-target: what it answers, and which flushes fail, `target/processor.rs`; its file or device,
//!   `target/file.rs`; how requests reach it, `export/server.rs`.
//!
//! # Threads
//!
//! * main (1). Makes the start, then is woken by: the end of `session`. May wait for: anything before the mount
//!   stands; 3 s for the end of the unmounter.
//! * `session` (1). Woken by: the end of the `fuser-N`. May wait for: these; at the end the threads of fs.
//! * `fuser-N` (1, or 2 where there are more than two processors). Woken by: a request on /dev/fuse; where it is
//!   the only one also frames, for 1 ms at a time (`runtime/deputy.rs`). Never waits for the network, nor for memory;
//!   `bind` and `unbind` make sockets and ask the kernel.
//! * `net-IF` (one for each interface in use). Woken by: a frame; `Link::wake`; the duty to receive comes back from
//!   `fuser-0` or `vhost`. May wait for: its socket.
//! * `sweeper` (1). Woken by: the earliest deadline, or an earlier one that is armed. May wait for: nothing else.
//! * `watcher` (1, none with `--demo`). Woken by: an interface changes (rtnetlink). May wait for: nothing else.
//! * `signals` (1). Woken by: SIGTERM, SIGINT, SIGHUP, through a descriptor. May wait for: an answer of the
//!   unmounter, 30 s at most, 3 s after a second signal, and then never again; 3 s for its end.
//! * `reload` (1 while it reads). Woken by: SIGHUP. May wait for: the configuration file, perhaps for ever.
//! * `status` (1 under a service manager that is told). Woken by: a line of the file `log`. May wait for: nothing else.
//! * `log` (1). Woken by: a line for stderr. May wait for: the reader of stderr, perhaps for ever.
//! * `aoefs-notify` (1 from its first use on). Woken by: attributes that changed, a poll(2) to wake. May wait for:
//!   nothing else.
//! * `aoefs-pages` (one for each target with pages to drop; ends after 5 s without any). Woken by: a change of
//!   bytes that the kernel has pages of, a disk that is stale. May wait for: the kernel's page locks, which a dead
//!   target may hold until its deadline.
//! * `vhost` (one for each socket). Woken by: a front end that connects, its messages and kicks, outcomes of its
//!   requests; while some are under way also frames, for 1 ms at a time (`runtime/beside.rs`). May wait for: whatever
//!   the front end does to its memory and descriptors; the disk to be opened.
//! * `vhost-end` (1 while sockets are taken away). Woken by: the end of `vhost`. May wait for: the file system that a
//!   socket is in; 1 s for `vhost`.
//! * `metrics` (1 from its first use on). Woken by: a read of `metrics` with more than 64 targets. May wait for:
//!   nothing else.
//! * `scrape` (1 with --metrics-listen). Woken by: a connection, or what comes on one. May wait for: nothing else.
//! * `target …` (1 with `--demo`). Woken by: a frame. May wait for: the image.
//! * process `aoefs-unmount` (1). Woken by: a word of the daemon, or its death. May wait for: umount(2), the scan
//!   of /proc.
//!
//! Whichever thread completes a request gives the reply to the kernel: `fuser-N`, `net-IF`, `sweeper`,
//! `aoefs-pages`, and the thread of a machine's disk.
//!
//! # Locks
//!
//! Outer locks first. Frames are sent and received, requests are answered, and the kernel is told things while none of
//! them is held, except the first.
//!
//! 1. The deputy (`runtime/deputy.rs`), which receives on the session's only thread. It is tried, never waited for. A
//!    front end's device, and what its thread receives with (`runtime/beside.rs`): nobody else locks them.
//! 2. Locks of one open file or of one target in fs: a truncation, the pages of a target, opens that wait, the place of
//!    a reader of the log.
//! 3. One answer that is given once (`Pending`), and one [`Device`](engine::Device), never two; neither inside of
//!    the other.
//! 4. Leaves, inside of all others: the tree, the handles, the configuration, timers, the ring of the log. The
//!    tables of netlinks and targets, the discovery and what was wished of interfaces are held for a look-up, with
//!    nothing else.
//!
//! Three locks are held for long on purpose, and no thread that serves the kernel waits for one: the exported
//! target's, while a batch of frames is done, the unmounter's socket, until it has answered, and the sender's of an
//! outbox (`runtime/outbox.rs`), which is tried: whoever does not get it leaves its frames to the thread that has it.

pub mod allowance;
pub mod app;
pub mod bug;
pub mod cli;
pub mod command;
pub mod daemon;
pub mod engine;
pub mod export;
pub mod failure;
pub mod fs;
pub mod link;
pub mod mount;
pub mod near;
pub mod parttable;
pub mod runtime;
pub mod scrape;
pub mod target;
pub mod top;
pub mod vhost;
pub mod wire;
