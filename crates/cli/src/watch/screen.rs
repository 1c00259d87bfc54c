//! The terminal while `watch` draws: taken over, listened to, and given back as it was however the
//! program ends.

use std::{io, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use skytale_sdk::Agent;
use tokio::{
    signal::{
        self,
        unix::{SignalKind, signal},
    },
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{CELLS_EVERY, Feed, Meter, News, event::ShownEvent, plot::Plot};
use crate::{exit::Failure, messages::Shown};

/// Draws until q, Ctrl-C or a signal.
pub(super) async fn show(agent: &Agent, mut feed: Feed<'_>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut plot = Plot::of(agent.name());
    let mut meter = Meter::new(agent.line_counters());
    let mut reads = interval(CELLS_EVERY);
    reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draws = interval(DRAW_EVERY);
    draws.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once, when nothing has passed.
    reads.tick().await;
    plot.stands(&agent.status().await?);
    let mut screen = Screen::take()?;
    let mut keys = listen();
    loop {
        tokio::select! {
            key = keys.recv() => match key {
                Some(Key::End) | None => return Ok(()),
                Some(Key::DrawAgain) => screen.0.clear()?,
            },
            _ = terminate.recv() => return Ok(()),
            _ = signal::ctrl_c() => return Ok(()),
            news = feed.next() => match news? {
                Some(News::Message(message)) => plot.tell(&Shown::of(&message).plain()),
                Some(News::Event(event)) => plot.tell(&ShownEvent::of(&event).plain()),
                None => return Ok(()),
            },
            _ = reads.tick() => {
                // What it does not say now it says a second later.
                if let Ok(status) = agent.status().await {
                    plot.stands(&status);
                }
                plot.note(meter.read(agent.line_counters()));
            }
            _ = draws.tick() => {
                screen.0.draw(|frame| plot.draw(frame))?;
            }
        }
    }
}

/// The terminal in raw mode on its second screen. Dropped, it is as it was; a panic gives it back
/// first, too.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        // What was half taken over before an error is given back as well.
        ratatui::try_init().map(Self).inspect_err(|_| {
            let _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}

enum Key {
    End,
    DrawAgain,
}

/// Keys, from a thread that ends soon after the receiver is dropped.
fn listen() -> mpsc::Receiver<Key> {
    let (tell, keys) = mpsc::channel(KEYS_MAX);
    tokio::task::spawn_blocking(move || {
        while !tell.is_closed() {
            let input = match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(_) => return,
            };
            let Ok(input) = input else { return };
            if let Some(key) = meant(&input)
                && tell.blocking_send(key).is_err()
            {
                return;
            }
        }
    });
    keys
}

fn meant(input: &Input) -> Option<Key> {
    let Input::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = input
    else {
        return None;
    };
    let with_control = modifiers.contains(KeyModifiers::CONTROL);
    let is = |key| *code == KeyCode::Char(key);
    if is('q') || *code == KeyCode::Esc || (is('c') && with_control) {
        Some(Key::End)
    } else if is('l') && with_control {
        // A log line may have run through the picture.
        Some(Key::DrawAgain)
    } else {
        None
    }
}

/// How often it is drawn: what does not change costs nothing.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How long the thread of the keys waits before it looks whether anybody still listens.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Keys that wait; further ones wait in the terminal.
const KEYS_MAX: usize = 16;
