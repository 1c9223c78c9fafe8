//! The content of the screen and the effect of keys, without terminal, file or clock.
//!
//! Promises: every state has a word, so that colours are never needed; a screen of any size can be drawn, a small one
//! with less on it, and what is left out is left out between words; 80×24 has every column but size and model of the
//! disks, which the page of one target has.

mod detail;
mod help;

use std::path::Path;
use std::time::Duration;

use aoefs::failure::one_line;
use aoefs::top::fit::fit;
use aoefs::top::report::TargetReport;
use aoefs::top::{Column, Report, Sort, table};
use aoefs::wire::Addr;
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

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Backspace,
    Escape,
}

/// What the screen shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    /// All targets.
    Table,
    /// One target.
    Target(Addr),
    /// The keys and the columns.
    Help,
}

/// Characters of a filter: more do not fit beside what else stands in its line.
const FILTER_MAX: usize = 40;

/// What stands between two netlinks.
const BETWEEN: &str = " | ";

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
    view: View,
    /// Targets without this text are not shown.
    filter: String,
    /// The filter is being typed; this is what it was before.
    typing: Option<String>,
    /// The target that Enter shows; the first one if it is none that is there.
    chosen: Option<Addr>,
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
            view: View::Table,
            filter: String::new(),
            typing: None,
            chosen: None,
            scroll: 0,
            page: 1,
            report: Report::default(),
            trouble: None,
            late: None,
        }
    }

    /// Shows only targets with that text, as `/` does.
    pub fn filter(&mut self, text: String) {
        self.filter = text;
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

    /// Does the work of a key. False: it was the one that ends the program.
    pub fn key(&mut self, key: Key) -> bool {
        if self.typing.is_some() {
            self.typed(key);
            return true;
        }
        match (key, self.view) {
            (Key::Char('q'), View::Table | View::Target(_)) => return false,
            (Key::Char('+'), View::Table | View::Target(_)) => {
                self.pace(|now| INTERVALS.into_iter().rev().find(|at| *at < now));
            }
            (Key::Char('-'), View::Table | View::Target(_)) => {
                self.pace(|now| INTERVALS.into_iter().find(|at| *at > now));
            }
            (Key::Char(' '), View::Table | View::Target(_)) => self.paused = !self.paused,
            (Key::Char('h' | '?'), View::Table | View::Target(_)) => self.show(View::Help),
            (key, View::Table) => self.table_key(key),
            (key, View::Target(_) | View::Help) => match self.moved(key) {
                Some(to) => self.scroll = to(self.scroll),
                None => self.show(View::Table),
            },
        }
        true
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.scroll = 0;
    }

    fn table_key(&mut self, key: Key) {
        match key {
            Key::Char('s' | '>') | Key::Right => self.sort = self.sort.step(1),
            Key::Char('S' | '<') | Key::Left => self.sort = self.sort.step(-1),
            Key::Char('r') => self.reverse = !self.reverse,
            Key::Char('p') => self.paths = !self.paths,
            Key::Char('l') => self.log = !self.log,
            Key::Char('/') => self.typing = Some(self.filter.clone()),
            Key::Escape => self.filter.clear(),
            Key::Enter => {
                if let Some(target) = self.shown_at(self.choice()) {
                    self.chosen = Some(target);
                    self.show(View::Target(target));
                }
            }
            key => {
                if let Some(to) = self.moved(key) {
                    let last = self.shown().count().saturating_sub(1);
                    let to = to(self.choice()).min(last);
                    self.chosen = self.shown_at(to);
                }
            }
        }
        self.order();
    }

    /// A key while the filter is typed.
    fn typed(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.typing = None,
            Key::Escape => self.filter = self.typing.take().unwrap_or_default(),
            _ => {}
        }
    }

    /// Where a key leads that moves, from a place in a list.
    fn moved(&self, key: Key) -> Option<impl Fn(usize) -> usize + use<>> {
        let page = self.page;
        let forth = match key {
            Key::Up | Key::Char('k') => -1,
            Key::Down | Key::Char('j') => 1,
            Key::PageUp => -page.cast_signed(),
            Key::PageDown => page.cast_signed(),
            Key::Home => isize::MIN / 2,
            // Drawing brings it back to the last page.
            Key::End => isize::MAX / 2,
            _ => return None,
        };
        Some(move |from: usize| from.saturating_add_signed(forth))
    }

    /// The targets that the filter lets through, in their order.
    fn shown(&self) -> impl Iterator<Item = &TargetReport> {
        self.report.targets.iter().filter(|target| self.filter.is_empty() || target.has(&self.filter))
    }

    fn shown_at(&self, place: usize) -> Option<Addr> {
        self.shown().nth(place).map(|target| target.target)
    }

    /// The place of the chosen target among them.
    fn choice(&self) -> usize {
        self.shown().position(|target| Some(target.target) == self.chosen).unwrap_or(0)
    }

    fn pace(&mut self, next: impl FnOnce(f64) -> Option<f64>) {
        if let Some(seconds) = next(self.interval.as_secs_f64()) {
            self.interval = Duration::from_secs_f64(seconds);
        }
    }

    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let Rect { width, height, .. } = frame.area();
        let columns = usize::from(width);
        let log =
            if self.log && self.view == View::Table && height >= LOG_FROM { height / LOG_SHARE } else { 0 };
        let above = if self.view == View::Help { 0 } else { ABOVE };
        let room = height.saturating_sub(above + BELOW + log);
        self.page = usize::from(room).max(1);
        let rows = self.rows(columns);
        self.scroll = self.scroll.min(rows.len().saturating_sub(self.page));
        let seen: Vec<Line<'_>> = rows.iter().skip(self.scroll).take(self.page).cloned().collect();
        let top = match self.view {
            View::Help => Vec::new(),
            View::Table => {
                vec![
                    self.title(rows.len(), columns),
                    self.sums(columns),
                    self.netlinks(columns),
                    self.heading(columns),
                ]
            }
            View::Target(_) => {
                vec![
                    self.title(rows.len(), columns),
                    self.sums(columns),
                    self.netlinks(columns),
                    Line::default(),
                ]
            }
        };
        let below = vec![self.keys(rows.len(), columns)];
        let parts = [(top, above), (seen, room), (self.log_lines(log.into(), columns), log), (below, BELOW)];
        let mut y = 0;
        for (lines, lines_high) in parts {
            let high = lines_high.min(height - y);
            let at = Rect { x: 0, y, width, height: high };
            frame.render_widget(Paragraph::new(lines), at);
            y += high;
        }
    }

    /// The rows of what is shown. Of the table, the chosen target's are brought into sight.
    fn rows(&mut self, width: usize) -> Vec<Line<'static>> {
        match self.view {
            View::Help => help::HELP.lines().map(Line::raw).collect(),
            View::Target(addr) => match self.report.targets.iter().find(|target| target.target == addr) {
                Some(target) => {
                    let lines = detail::lines(target, &self.report.log, width);
                    let style = |n: usize| match (n, target.state) {
                        (0, "up") => self.bold(Color::Green),
                        (0, _) => self.bold(Color::Red),
                        _ => Style::new(),
                    };
                    lines.into_iter().enumerate().map(|(n, line)| Line::styled(line, style(n))).collect()
                }
                None => vec![Line::raw(format!("Target {addr} is known no more"))],
            },
            View::Table => {
                let (rows, chosen) = self.table_rows(width);
                if chosen.start < self.scroll {
                    self.scroll = chosen.start;
                } else if chosen.end > self.scroll + self.page {
                    // Its first row is seen even if it has more rows than there is room for.
                    self.scroll = (chosen.end - self.page).min(chosen.start);
                }
                rows
            }
        }
    }

    fn style(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn bold(&self, colour: Color) -> Style {
        self.style(colour).add_modifier(Modifier::BOLD)
    }

    fn title(&self, rows: usize, width: usize) -> Line<'static> {
        let (every, direction) = (self.interval.as_secs_f64(), self.sort.direction(self.reverse));
        let place = match rows > self.page {
            true => format!("{}-{} of {rows}  ", self.scroll + 1, rows.min(self.scroll + self.page)),
            false => String::new(),
        };
        let sort = format!("sort: {}, {direction}", self.sort.name());
        // What there is no room for is left out, the least important first.
        let left = format!("aoefs {} on {}", self.report.version, self.point);
        let state = if self.paused { "  PAUSED" } else { "" };
        let right = match self.view {
            View::Table => [format!("{place}every {every} s  {sort}"), format!("{place}{sort}"), sort],
            _ => [format!("{place}every {every} s"), place.trim_end().to_owned(), String::new()],
        };
        let taken = |right: &str| state.len() + 1 + right.chars().count();
        let fits = |right: &&String| left.chars().count() + taken(right) <= width;
        let right = right.iter().find(fits).or(right.last()).cloned().unwrap_or_default();
        let left = fit(&left, width.saturating_sub(taken(&right)), &[]);
        let gap = width.saturating_sub(left.chars().count() + state.len() + right.chars().count());
        Line::from(vec![
            Span::styled(left, self.bold(Color::Reset)),
            Span::styled(state, self.bold(Color::Yellow)),
            Span::raw(" ".repeat(gap.max(1)) + &right),
        ])
    }

    /// The sums over all targets; or why they are not known.
    fn sums(&self, width: usize) -> Line<'static> {
        if let Some(why) = &self.trouble {
            return Line::styled(fit(why, width, &[]), self.bold(Color::Red));
        }
        if let Some(time) = self.late {
            let late = format!("no answer from {} for {} s", self.point, time.as_secs());
            return Line::styled(fit(&late, width, &[]), self.bold(Color::Red));
        }
        Line::raw(fit(&table::summary(&self.report), width, &["; ", ", "]))
    }

    fn netlinks(&self, width: usize) -> Line<'static> {
        if self.trouble.is_some() {
            let again =
                format!("trying again every {} s; below is what was known last", self.interval.as_secs_f64());
            return Line::styled(fit(&again, width, &["; "]), self.style(Color::Red));
        }
        let words = table::netlinks_that_fit(&self.report.netlinks, width, BETWEEN);
        if words.iter().map(|words| words.chars().count() + BETWEEN.len()).sum::<usize>()
            > width + BETWEEN.len()
        {
            return Line::raw(fit(&words.join(BETWEEN), width, &[BETWEEN]));
        }
        let mut spans = Vec::new();
        for (net, words) in self.report.netlinks.iter().zip(words) {
            if !spans.is_empty() {
                spans.push(Span::raw(BETWEEN));
            }
            let style = if net.state == "up" { Style::new() } else { self.style(Color::Red) };
            spans.push(Span::styled(words, style));
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

    /// The rows of the table, and which of them are the chosen target's.
    fn table_rows(&self, width: usize) -> (Vec<Line<'static>>, std::ops::Range<usize>) {
        let columns = Column::that_fit(width);
        let choice = self.choice();
        let mut rows = Vec::new();
        let mut chosen = 0..0;
        for (place, target) in self.shown().enumerate() {
            let start = rows.len();
            let mut spans = Vec::new();
            for column in &columns {
                spans.push(Span::styled(
                    column.padded(&column.cell(target)),
                    self.cell_style(*column, target),
                ));
                spans.push(Span::raw(" "));
            }
            let line = Line::from(spans);
            rows.push(if place == choice {
                line.patch_style(Modifier::BOLD | Modifier::UNDERLINED)
            } else {
                line
            });
            if self.paths {
                rows.extend(target.paths.iter().map(|path| {
                    let style = if path.state == "active" { Style::new() } else { self.style(Color::Red) };
                    let line = table::path_line(path, width.saturating_sub(2));
                    Line::styled(format!("  {line}"), style)
                }));
                let exports = target.exports.iter();
                rows.extend(exports.map(|export| {
                    Line::raw(format!("  {}", table::export_line(export, width.saturating_sub(2))))
                }));
            }
            if place == choice {
                chosen = start..rows.len();
            }
        }
        (rows, chosen)
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
            // A target that is down is so in its whole row.
            _ if target.state != "up" => self.style(Color::Red),
            Column::Again if rate(|rates| rates.retransmissions_per_second) => self.style(Color::Yellow),
            Column::Errors if rate(|rates| rates.errors_per_second) => self.bold(Color::Red),
            Column::Paths if target.paths.iter().any(|path| path.state != "active") => {
                self.style(Color::Yellow)
            }
            _ => Style::new(),
        }
    }

    fn log_lines(&self, room: usize, width: usize) -> Vec<Line<'static>> {
        let Some(room) = room.checked_sub(1) else { return Vec::new() };
        let mut lines = vec![Line::styled("LOG", self.bold(Color::Reset))];
        let old = self.report.log.len().saturating_sub(room);
        lines.extend(self.report.log[old..].iter().map(|line| Line::raw(fit(line, width, &[]))));
        lines
    }

    /// The last line: keys, or the filter.
    fn keys(&self, rows: usize, width: usize) -> Line<'static> {
        let dim = Style::new().add_modifier(Modifier::DIM);
        if self.typing.is_some() {
            let words = format!("filter: {}_  Enter keeps it, Esc ends it", self.filter);
            return Line::styled(fit(&words, width, &["  "]), self.bold(Color::Reset));
        }
        let keys = match self.view {
            View::Table if !self.filter.is_empty() => {
                let (shown, all) = (self.shown().count(), self.report.targets.len());
                let words =
                    format!("filter \"{}\": {shown} of {all} targets; Esc shows all of them", self.filter);
                return Line::styled(fit(&words, width, &["; "]), self.bold(Color::Yellow));
            }
            View::Table => {
                "q quit  h help  / filter  Enter details  s sort  r reverse  p paths  l log  + - pace"
            }
            View::Target(_) => "Esc back  q quit  h help  + - pace  space pause  up down move",
            View::Help if rows > self.page => "any key goes back  up down move  there is more",
            View::Help => "any key goes back",
        };
        Line::styled(fit(keys, width, &["  "]), dim)
    }
}

#[cfg(test)]
mod tests;
