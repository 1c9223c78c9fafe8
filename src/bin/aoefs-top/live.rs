//! The live view: threads that wait for input, and one that draws.
//!
//! Promises: when the command ends, for whatever reason, and while it is stopped, the terminal is as it was before; the
//! screen is drawn only after news, or once a second while a reading is overdue.

use std::io::{self, Stdout};
use std::thread;
use std::time::{Duration, Instant};

use aoefs::top::{Report, Sort};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use nix::sys::signal::{SigSet, Signal, raise};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};

use super::screen::{App, Key};
use super::source::Source;

/// How often the screen is drawn while there is no news.
const TICK: Duration = Duration::from_secs(1);

/// A message to the drawing thread.
enum News {
    Reading(Box<Result<Report, String>>),
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// A signal, or no terminal any more.
    End,
}

/// Runs until a key or a signal ends it.
pub fn run(
    source: Source,
    first: Report,
    interval: Duration,
    order: (Sort, bool),
    filter: String,
) -> Result<(), String> {
    // Before any thread, so that all of them leave the signals to the one that waits for them.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block().map_err(|e| format!("cannot block signals: {e}"))?;
    let (news, heard) = unbounded();
    let (pace, paced) = bounded(1);
    let mut app = App::new(source.point(), interval, order, wants_colour());
    app.filter(filter);
    app.reading(Ok(first));
    let mut screen = Screen::open().map_err(|e| format!("cannot use the terminal: {e}"))?;
    let waiting = |name: &str, wait: Box<dyn FnOnce() + Send>| {
        thread::Builder::new()
            .name(name.into())
            .spawn(wait)
            .map_err(|e| format!("cannot start a thread: {e}"))
    };
    let (for_readings, for_keys, for_signals) = (news.clone(), news.clone(), news);
    waiting("readings", Box::new(move || read(source, interval, &paced, &for_readings)))?;
    waiting("keys", Box::new(move || keys(&for_keys)))?;
    waiting(
        "signals",
        Box::new(move || {
            let _ = signals.wait();
            let _ = for_signals.send(News::End);
        }),
    )?;
    // None of the threads is waited for: each may be inside a call that does not return.
    show(&mut screen, &mut app, &heard, &pace)
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Reads at every interval; a new interval counts from the last reading on.
fn read(mut source: Source, mut interval: Duration, paced: &Receiver<Duration>, news: &Sender<News>) {
    let mut last = Instant::now();
    loop {
        match paced.recv_deadline(last + interval) {
            Ok(new) => interval = new,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                last = Instant::now();
                if news.send(News::Reading(Box::new(source.read()))).is_err() {
                    return;
                }
            }
        }
    }
}

fn keys(news: &Sender<News>) {
    loop {
        let heard = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => News::Key(key),
            Ok(Event::Resize(..)) => News::Resized,
            Ok(_) => continue,
            Err(_) => News::End,
        };
        let end = matches!(heard, News::End);
        if news.send(heard).is_err() || end {
            return;
        }
    }
}

fn show(
    screen: &mut Screen,
    app: &mut App,
    heard: &Receiver<News>,
    pace: &Sender<Duration>,
) -> Result<(), String> {
    let mut last = Instant::now();
    loop {
        screen.draw(app).map_err(|e| format!("cannot draw: {e}"))?;
        let mut next = match heard.recv_timeout(TICK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // All messages that are there, and then one picture: a key that is held must not make it lag.
        while let Some(news) = next {
            match news {
                News::End => return Ok(()),
                // The terminal has moved or cut what was drawn.
                News::Resized => screen.again().map_err(|e| format!("cannot draw: {e}"))?,
                News::Reading(reading) => {
                    last = Instant::now();
                    app.reading(*reading);
                }
                News::Key(key) => match meaning(key) {
                    Some(Meaning::Quit) => return Ok(()),
                    Some(Meaning::Stop) => {
                        screen.stop().map_err(|e| format!("cannot use the terminal: {e}"))?
                    }
                    Some(Meaning::Key(key)) => {
                        if !app.key(key) {
                            return Ok(());
                        }
                        // It is full only while the reader hangs; the next key then sends the newest interval.
                        let _ = pace.try_send(app.interval());
                    }
                    None => {}
                },
            }
            next = heard.try_recv().ok();
        }
        app.silent_for(last.elapsed());
    }
}

enum Meaning {
    Quit,
    Stop,
    Key(Key),
}

fn meaning(key: KeyEvent) -> Option<Meaning> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Meaning::Quit),
            KeyCode::Char('z') => Some(Meaning::Stop),
            _ => None,
        };
    }
    Some(Meaning::Key(match key.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Enter => Key::Enter,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::F(1) => Key::Char('?'),
        KeyCode::Esc => Key::Escape,
        _ => return None,
    }))
}

/// The terminal while it is ours.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn open() -> io::Result<Screen> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // The words of a panic must not be drawn into the picture.
            let _ = give_back();
            hook(info);
        }));
        take()?;
        let screen = Terminal::new(CrosstermBackend::new(io::stdout()));
        screen.map(Screen).inspect_err(|_| {
            let _ = give_back();
        })
    }

    fn draw(&mut self, app: &mut App) -> io::Result<()> {
        self.0.draw(|frame| app.draw(frame)).map(|_| ())
    }

    /// Ctrl-Z: stops, and takes the terminal again when the shell says so.
    fn stop(&mut self) -> io::Result<()> {
        give_back()?;
        raise(Signal::SIGTSTP)?;
        take()?;
        self.again()
    }

    /// The next picture is drawn whole. (`clear` would ask the terminal where its cursor is, and the thread that waits
    /// for keys would get the answer.)
    fn again(&mut self) -> io::Result<()> {
        let size = self.0.size()?;
        self.0.resize(size.into())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = give_back();
    }
}

fn take() -> io::Result<()> {
    terminal::enable_raw_mode()?;
    execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)
}

fn give_back() -> io::Result<()> {
    terminal::disable_raw_mode()?;
    execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show)
}
