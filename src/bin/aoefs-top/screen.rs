//! The content of the screen and the effect of keys, without terminal, file or clock.
//!
//! Promises: every state has a word, so that colours are never needed; a screen of any size can be drawn, a small one
//! with less on it; 80×24 has everything but the disks' models and the rate of errors.

use std::path::Path;
use std::time::Duration;

use aoefs::failure::one_line;
use aoefs::top::report::TargetReport;
use aoefs::top::{Column, Report, Sort, table};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// The intervals between two readings that + and - choose from, in seconds.
const INTERVALS: [f64; 8] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0];

/// How long after its time a reading is called late.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lines above the rows of the table (title, sums, netlinks, headings) and below them (keys).
const ABOVE: u16 = 4;
const BELOW: u16 = 1;

/// The log has at most this share of the height, one in so many lines, and no place at all on a terminal lower than
/// this.
const LOG_SHARE: u16 = 4;
const LOG_FROM: u16 = 16;

const HELP: &str = "\
Keys

  s S  < >     next or previous column to sort by
  r            turn the order around
  p            show or hide the paths of each target
  l            show or hide the log
  + -          shorter or longer interval
  space        pause, go on
  up down, j k, PgUp PgDn, Home End
               move through the targets
  h ?          this page; any key leaves it
  q, Ctrl-C    quit             Ctrl-Z  stop

Columns

  IOPS  reads, writes and flushes that ended, a second
  LAT   mean latency of reads and writes, P99 what one in 100 exceeds
  QUEUE requests not answered yet
  RETX  frames sent again      PATHS  paths that carry work, of how many";

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Escape,
}

/// See the module.
pub struct App {
    point: String,
    interval: Duration,
    sort: Sort,
    reverse: bool,
    colour: bool,
    paused: bool,
    paths: bool,
    log: bool,
    help: bool,
    /// Rows above the first one that is seen, and how many are seen.
    scroll: usize,
    page: usize,
    report: Report,
    /// Why the last reading failed.
    trouble: Option<String>,
    /// The time since the last reading, once that is too long.
    late: Option<Duration>,
}

impl App {
    pub fn new(point: &Path, interval: Duration, (sort, reverse): (Sort, bool), colour: bool) -> App {
        App {
            point: one_line(&point.display().to_string()),
            interval,
            sort,
            reverse,
            colour,
            paused: false,
            paths: false,
            log: true,
            help: false,
            scroll: 0,
            page: 1,
            report: Report::default(),
            trouble: None,
            late: None,
        }
    }

    /// Between two readings.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// A reading came, or failed.
    pub fn reading(&mut self, reading: Result<Report, String>) {
        self.late = None;
        match reading {
            Ok(report) => {
                self.trouble = None;
                if !self.paused {
                    self.report = report;
                    self.order();
                }
            }
            // The last report stays.
            Err(why) => self.trouble = Some(one_line(&why)),
        }
    }

    /// No reading came for so long.
    pub fn silent_for(&mut self, time: Duration) {
        self.late = (time > self.interval + PATIENCE).then_some(time);
    }

    fn order(&mut self) {
        self.sort.apply(&mut self.report.targets, self.reverse);
    }

    /// Does the work of a key.
    pub fn key(&mut self, key: Key) {
        if self.help {
            self.help = false;
            return;
        }
        match key {
            Key::Char('s' | '>') => self.sort = self.sort.step(1),
            Key::Char('S' | '<') => self.sort = self.sort.step(-1),
            Key::Char('r') => self.reverse = !self.reverse,
            Key::Char('p') => self.paths = !self.paths,
            Key::Char('l') => self.log = !self.log,
            Key::Char('h' | '?') => self.help = true,
            Key::Char(' ') => self.paused = !self.paused,
            Key::Char('+') => self.pace(|now| INTERVALS.into_iter().rev().find(|at| *at < now)),
            Key::Char('-') => self.pace(|now| INTERVALS.into_iter().find(|at| *at > now)),
            Key::Up | Key::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            Key::Down | Key::Char('j') => self.scroll += 1,
            Key::PageUp => self.scroll = self.scroll.saturating_sub(self.page),
            Key::PageDown => self.scroll += self.page,
            Key::Home => self.scroll = 0,
            // Drawing brings it back to the last page.
            Key::End => self.scroll = usize::MAX / 2,
            Key::Char(_) | Key::Escape => {}
        }
        self.order();
    }

    fn pace(&mut self, next: impl FnOnce(f64) -> Option<f64>) {
        if let Some(seconds) = next(self.interval.as_secs_f64()) {
            self.interval = Duration::from_secs_f64(seconds);
        }
    }

    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let Rect { width, height, .. } = frame.area();
        if self.help {
            return frame.render_widget(Paragraph::new(HELP), frame.area());
        }
        let log = if self.log && height >= LOG_FROM { height / LOG_SHARE } else { 0 };
        let room = height.saturating_sub(ABOVE + BELOW + log);
        let rows = self.rows(width.into());
        self.page = usize::from(room).max(1);
        self.scroll = self.scroll.min(rows.len().saturating_sub(self.page));
        let seen: Vec<Line<'_>> = rows.iter().skip(self.scroll).take(self.page).cloned().collect();
        let top = vec![
            self.title(rows.len(), width.into()),
            self.sums(),
            self.netlinks(),
            self.heading(width.into()),
        ];
        let parts =
            [(top, ABOVE), (seen, room), (self.log_lines(log.into()), log), (vec![self.keys()], BELOW)];
        let mut y = 0;
        for (lines, lines_high) in parts {
            let high = lines_high.min(height - y);
            let at = Rect { x: 0, y, width, height: high };
            frame.render_widget(Paragraph::new(lines), at);
            y += high;
        }
    }

    fn style(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn bold(&self, colour: Color) -> Style {
        self.style(colour).add_modifier(Modifier::BOLD)
    }

    fn title(&self, rows: usize, width: usize) -> Line<'static> {
        let mut right = format!("every {} s  sort: {}", self.interval.as_secs_f64(), self.sort.name());
        if self.reverse {
            right.push_str(" reversed");
        }
        if rows > self.page {
            right = format!("{}-{} of {rows}  {right}", self.scroll + 1, rows.min(self.scroll + self.page));
        }
        let left = format!("aoefs {} on {}", self.report.version, self.point);
        let state = if self.paused { "  PAUSED" } else { "" };
        let used = left.chars().count() + state.len() + right.chars().count();
        let gap = " ".repeat(width.saturating_sub(used).max(1));
        Line::from(vec![
            Span::styled(left, self.bold(Color::Reset)),
            Span::styled(state, self.bold(Color::Yellow)),
            Span::raw(gap + &right),
        ])
    }

    /// The sums over all targets; or why they are not known.
    fn sums(&self) -> Line<'static> {
        if let Some(why) = &self.trouble {
            return Line::styled(why.clone(), self.bold(Color::Red));
        }
        if let Some(time) = self.late {
            let late = format!("no answer from {} for {} s", self.point, time.as_secs());
            return Line::styled(late, self.bold(Color::Red));
        }
        Line::raw(table::summary(&self.report))
    }

    fn netlinks(&self) -> Line<'static> {
        if self.trouble.is_some() {
            let again =
                format!("trying again every {} s; below is what was known last", self.interval.as_secs_f64());
            return Line::styled(again, self.style(Color::Red));
        }
        let mut spans = Vec::new();
        for net in &self.report.netlinks {
            if !spans.is_empty() {
                spans.push(Span::raw(" | "));
            }
            let style = if net.state == "up" { Style::new() } else { self.style(Color::Red) };
            spans.push(Span::styled(table::netlink_words(net), style));
        }
        Line::from(spans)
    }

    fn heading(&self, width: usize) -> Line<'static> {
        let mut spans = Vec::new();
        for column in Column::that_fit(width) {
            let style = Style::new().add_modifier(Modifier::REVERSED);
            let chosen = self.sort.columns().contains(&column);
            let mark = Modifier::BOLD | Modifier::UNDERLINED;
            let style = if chosen { style.add_modifier(mark) } else { style };
            spans.push(Span::styled(column.padded(column.title()), style));
            spans.push(Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)));
        }
        spans.pop();
        Line::from(spans)
    }

    fn rows(&self, width: usize) -> Vec<Line<'static>> {
        let columns = Column::that_fit(width);
        let mut rows = Vec::new();
        for target in &self.report.targets {
            let mut spans = Vec::new();
            for column in &columns {
                spans.push(Span::styled(
                    column.padded(&column.cell(target)),
                    self.cell_style(*column, target),
                ));
                spans.push(Span::raw(" "));
            }
            rows.push(Line::from(spans));
            if self.paths {
                rows.extend(target.paths.iter().map(|path| {
                    let style = if path.state == "active" { Style::new() } else { self.style(Color::Red) };
                    Line::styled(format!("  {}", table::path_line(path)), style)
                }));
                let exports = target.exports.iter();
                rows.extend(exports.map(|export| Line::raw(format!("  {}", table::export_line(export)))));
            }
        }
        rows
    }

    fn cell_style(&self, column: Column, target: &TargetReport) -> Style {
        let stale = self.trouble.is_some() || self.late.is_some();
        let rate = |field: fn(&aoefs::top::report::Rates) -> f64| {
            target.rates.as_ref().is_some_and(|r| field(r) > 0.0)
        };
        match column {
            _ if stale => Style::new().add_modifier(Modifier::DIM),
            Column::State if target.state == "up" => self.style(Color::Green),
            Column::State => self.bold(Color::Red),
            Column::Again if rate(|rates| rates.retransmissions_per_second) => self.style(Color::Yellow),
            Column::Errors if rate(|rates| rates.errors_per_second) => self.bold(Color::Red),
            Column::Paths if target.paths.iter().any(|path| path.state != "active") => {
                self.style(Color::Yellow)
            }
            _ => Style::new(),
        }
    }

    fn log_lines(&self, room: usize) -> Vec<Line<'static>> {
        let Some(room) = room.checked_sub(1) else { return Vec::new() };
        let mut lines = vec![Line::styled("LOG", self.bold(Color::Reset))];
        let old = self.report.log.len().saturating_sub(room);
        lines.extend(self.report.log[old..].iter().map(|line| Line::raw(line.clone())));
        lines
    }

    fn keys(&self) -> Line<'static> {
        let keys = "q quit  s sort  r reverse  p paths  l log  + - interval  space pause  h help";
        Line::styled(keys, Style::new().add_modifier(Modifier::DIM))
    }
}

#[cfg(test)]
mod tests;
