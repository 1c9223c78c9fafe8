//! What an event costs when there are many targets: a table of nanoseconds, by kind of event and number of targets,
//! and a plot.
//!
//! `cargo bench --bench scale` prints the table; with `-- --svg FILE` it draws the plot, too. 100,000 targets take
//! about 1 GB.

#[path = "scale/bookkeeping.rs"]
mod bookkeeping;
#[path = "scale/plot.rs"]
mod plot;

use bookkeeping::COLUMNS;

/// Numbers of targets, a decade in two steps.
const NUMBERS: [usize; 7] = [100, 316, 1000, 3162, 10_000, 31_623, 100_000];
/// How often each is measured, and with how many events.
const ROUNDS: usize = 41;
const EVENTS: usize = 500;

fn main() -> std::io::Result<()> {
    let costs = bookkeeping::costs(&NUMBERS, ROUNDS, EVENTS);
    print!("{:>9}", "targets");
    COLUMNS.iter().for_each(|name| print!(" {name:>17}"));
    println!("   ns an event, medians");
    for (n, row) in &costs {
        print!("{n:>9}");
        row.iter().for_each(|ns| print!(" {ns:>17.0}"));
        println!();
    }
    let mut args = std::env::args().skip_while(|arg| arg != "--svg").skip(1);
    if let Some(file) = args.next() {
        let lines: Vec<plot::Line> = COLUMNS
            .iter()
            .enumerate()
            .map(|(i, name)| plot::Line {
                name,
                points: costs.iter().map(|(n, row)| (*n as f64, row[i])).collect(),
            })
            .collect();
        std::fs::write(
            &file,
            plot::render("Bookkeeping on the engine", "known targets", "ns an event", &lines),
        )?;
        println!("{file}");
    }
    Ok(())
}
