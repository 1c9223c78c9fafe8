//! fio as a judge: it writes a pattern with a check sum in every block, reads it back and fails on the first wrong one.

use super::proc;
use std::path::Path;
use std::time::Duration;

/// A run of fio with verification over one file.
pub struct Fio {
    pub limit: Duration,
    pub words: Vec<String>,
}

/// What a run moved.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    pub read_mib: f64,
    pub written_mib: f64,
}

impl Fio {
    /// Random writes of 512 B to 256 KiB, crc32c in every block, 16 outstanding, `jobs` jobs on separate ranges of
    /// `mib` MiB each.
    pub fn verify(file: &Path, jobs: usize, mib: usize) -> Self {
        let words = [
            "fio --name=verify --rw=randwrite --bsrange=512-256k --ioengine=libaio --direct=1 --iodepth=16",
            "--verify=crc32c --do_verify=1 --verify_fatal=1 --verify_dump=0 --verify_state_save=0 --randrepeat=1 --randseed=4711",
            "--group_reporting --output-format=terse --terse-version=3",
        ];
        let mut fio = Self { limit: Duration::from_secs(120), words: Vec::new() };
        words.iter().for_each(|line| fio.add(line));
        fio.add(&format!("--numjobs={jobs} --size={mib}m --offset_increment={mib}m"));
        fio.words.push(format!("--filename={}", file.display()));
        fio
    }

    /// More options, or others in place of the earlier ones (fio takes the last).
    pub fn with(mut self, options: &str) -> Self {
        self.add(options);
        self
    }

    fn add(&mut self, options: &str) {
        self.words.extend(options.split(' ').map(ToString::to_string));
    }

    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it. Any I/O error and any wrong block is an error with fio's own words.
    pub fn try_run(&self) -> Result<Moved, String> {
        let output = proc::run(self.limit, &self.words);
        let said = || format!("{}\n{}", output.stdout, output.stderr);
        if !output.ok() {
            let how = if output.timed_out {
                "no end within its time".into()
            } else {
                format!("exit code {:?}", output.code)
            };
            return Err(format!("fio: {how}\n{}", said()));
        }
        let line = output.stdout.lines().find(|line| line.starts_with("3;")).ok_or_else(said)?;
        let fields: Vec<&str> = line.split(';').collect();
        let mib =
            |field: usize| fields.get(field).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0;
        if fields.get(4) != Some(&"0") {
            return Err(format!("fio counts errors: {}", said()));
        }
        Ok(Moved { read_mib: mib(5), written_mib: mib(46) })
    }

    #[track_caller]
    pub fn run(&self) -> Moved {
        self.try_run().unwrap_or_else(|why| panic!("{why}"))
    }
}
