//! The picture: cells a second in both directions over the last minute or two, and what was told.
//!
//! It is drawn from what it was given and from nothing else, so that a test can look at it.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Wrap},
};
use skytale_sdk::{LineShapes, LinkState, Mode, Shape, Status};

use super::{Cells, Way};

/// What is shown.
pub(super) struct Plot {
    name: String,
    /// How the line stands, in words.
    state: String,
    /// One for each second, oldest first.
    cells: VecDeque<Cells>,
    /// Oldest first.
    told: VecDeque<String>,
    /// Since watching began.
    over: u64,
    missed: u64,
    missing: u64,
}

impl Plot {
    pub(super) fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: "looking for the relay".to_owned(),
            cells: VecDeque::new(),
            told: VecDeque::new(),
            over: 0,
            missed: 0,
            missing: 0,
        }
    }

    /// Takes what has passed in about a second.
    pub(super) fn note(&mut self, cells: Cells) {
        self.over += cells.over;
        self.missed += cells.missed;
        self.missing += cells.missing;
        self.cells.push_back(cells);
        if self.cells.len() > SECONDS {
            self.cells.pop_front();
        }
    }

    /// Takes a line of text that is safe to show.
    pub(super) fn tell(&mut self, text: &str) {
        for line in text.lines() {
            self.told.push_back(line.replace('\t', " "));
        }
        while self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
    }

    /// Takes how the agent stands.
    pub(super) fn stands(&mut self, status: &Status) {
        self.state = match (status.held_by, status.relays.as_slice()) {
            (Some(pid), _) => {
                format!("process {pid} holds the line, and its cells are not known here")
            }
            (None, []) => "no relay is wanted yet".to_owned(),
            (None, relays) => {
                let each = relays
                    .iter()
                    .map(|relay| match (relay.state, relay.shapes) {
                        (Some(LinkState::Ready), Some(shapes)) => agreed(&shapes),
                        (Some(LinkState::Ready | LinkState::Greeting), _) => {
                            "greeting the relay".to_owned()
                        }
                        (Some(LinkState::Refused(refusal)), _) => format!("refused: {refusal}"),
                        (Some(LinkState::Connecting) | None, _) => {
                            "looking for the relay".to_owned()
                        }
                    });
                each.collect::<Vec<_>>().join(" · ")
            }
        };
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let [head, to_relay, from_relay, told, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(2),
            Constraint::Fill(2),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let title = Line::from_iter([
            Span::from(format!(" {} ", self.name)).bold(),
            Span::from(format!("· {}", self.state)),
        ]);
        frame.render_widget(title, head);
        self.draw_way(frame, to_relay, "to the relay", |cells| &cells.sent);
        self.draw_way(frame, from_relay, "from the relay", |cells| &cells.received);
        self.draw_told(frame, told);
        frame.render_widget(Line::from(self.foot()).dim(), foot);
    }

    fn draw_way(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        name: &str,
        way: impl Fn(&Cells) -> &Way,
    ) {
        let mut points = [Vec::new(), Vec::new(), Vec::new()];
        let mut highest = LOWEST_TOP;
        for (ago, cells) in self.cells.iter().rev().enumerate() {
            let x = -number(ago as u64);
            let [total, cover, real] = per_second(way(cells), cells.ms);
            highest = highest.max(total);
            points[0].push((x, total));
            points[1].push((x, cover));
            if real > 0.0 {
                // A bar: single seconds show, and a second without shows nothing.
                points[2].push((x, real));
            }
        }
        let [total, cover, real] = &points;
        let line = |colour, data| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(colour))
                .data(data)
        };
        let bars = Dataset::default()
            .marker(Marker::HalfBlock)
            .graph_type(GraphType::Bar)
            .style(Style::new().fg(REAL))
            .data(real);
        let [total_now, cover_now, real_now] = self
            .cells
            .back()
            .map(|cells| per_second(way(cells), cells.ms))
            .unwrap_or_default();
        // It says what the colours mean as well.
        let title = Line::from_iter([
            Span::from(format!(" {name}: ")),
            Span::from(format!("{total_now:.1} cells/s")).fg(TOTAL),
            Span::from(", "),
            Span::from(format!("{real_now:.1} real")).fg(REAL),
            Span::from(", "),
            Span::from(format!("{cover_now:.1} cover ")).fg(COVER),
        ]);
        let top = highest.ceil();
        let chart = Chart::new(vec![line(TOTAL, total), line(COVER, cover), bars])
            .legend_position(None)
            .block(Block::bordered().title(title))
            .x_axis(
                Axis::default()
                    .bounds([-number(SECONDS as u64 - 1), 0.0])
                    .labels([format!("{SECONDS} s ago"), "now".to_owned()]),
            )
            .y_axis(
                Axis::default()
                    .bounds([0.0, top])
                    .labels(["0".to_owned(), format!("{top:.0}")]),
            );
        frame.render_widget(chart, area);
    }

    /// The newest at the bottom.
    fn draw_told(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = usize::from(area.height.saturating_sub(2));
        let newest = self.told.iter().skip(self.told.len().saturating_sub(rows));
        let text: Vec<Line<'_>> = newest.map(|line| Line::from(line.as_str())).collect();
        let told = Paragraph::new(text)
            .block(Block::bordered().title(" what comes "))
            .wrap(Wrap { trim: false });
        frame.render_widget(told, area);
    }

    fn foot(&self) -> String {
        let mut words = vec![" q ends".to_owned()];
        for (count, what) in [
            (self.over, "cells left beside the schedule"),
            (self.missed, "slots missed"),
            (self.missing, "cells of cover taken out by somebody"),
        ] {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        }
        words.join(" · ")
    }
}

fn agreed(shapes: &LineShapes) -> String {
    format!(
        "{} to the relay, {} from it",
        in_words(&shapes.to_relay),
        in_words(&shapes.to_agent)
    )
}

fn in_words(shape: &Shape) -> String {
    match shape.mode() {
        Mode::Padded => "padded, no cover".to_owned(),
        mode @ (Mode::Immediate | Mode::Adaptive | Mode::Constant) => format!(
            "{} at {}/s",
            mode.name(),
            f64::from(shape.millislots()) / 1_000.0
        ),
    }
}

/// Total, cover and real cells a second.
fn per_second(way: &Way, ms: u64) -> [f64; 3] {
    let seconds = number(ms.max(1)) / 1_000.0;
    [way.total(), way.cover, way.real].map(|count| number(count) / seconds)
}

#[expect(clippy::cast_precision_loss, reason = "counts and times of minutes")]
const fn number(count: u64) -> f64 {
    count as f64
}

/// What the picture goes back.
const SECONDS: usize = 120;
/// Lines that are kept to be shown.
const TOLD_MAX: usize = 200;
/// The plot reaches up to here at least, so that a quiet line does not fill it.
const LOWEST_TOP: f64 = 8.0;
const TOTAL: Color = Color::Gray;
const COVER: Color = Color::Blue;
const REAL: Color = Color::Green;

#[cfg(test)]
mod tests {
    use ratatui::{
        Terminal,
        backend::TestBackend,
        buffer::{Buffer, Cell},
    };

    use super::*;

    fn second(sent: [u64; 2], received: [u64; 2]) -> Cells {
        let way = |[real, cover]: [u64; 2]| Way {
            real,
            cover,
            bytes: (real + cover) * 1_056,
        };
        Cells {
            event: "cells",
            ms: 1_000,
            sent: way(sent),
            received: way(received),
            over: 0,
            missed: 0,
            missing: 0,
        }
    }

    fn drawn(plot: &Plot) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(100, 40)).unwrap();
        terminal.draw(|frame| plot.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width);
        let symbols: Vec<&str> = buffer.content.iter().map(Cell::symbol).collect();
        symbols.chunks(width).map(<[&str]>::concat).collect()
    }

    /// Columns in which something of this colour is plotted, in the upper chart.
    fn columns(buffer: &Buffer, colour: Color) -> Vec<u16> {
        let mut columns = Vec::new();
        for y in 1..16 {
            for x in 0..buffer.area.width {
                let cell = &buffer[(x, y)];
                let is_letter = cell.symbol().is_ascii();
                if (cell.fg == colour || cell.bg == colour) && !is_letter {
                    columns.push(x);
                }
            }
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    #[test]
    fn the_plot_shows_total_cover_and_real_of_both_ways() {
        let mut plot = Plot::of("planner");
        for _ in 0..60 {
            plot.note(second([0, 4], [0, 5]));
        }
        let quiet = drawn(&plot);
        assert!(columns(&quiet, REAL).is_empty(), "nothing real has passed");
        assert!(
            columns(&quiet, COVER).len() > 30,
            "half of the width is cover"
        );

        for _ in 0..10 {
            plot.note(second([3, 1], [2, 3]));
        }

        let busy = drawn(&plot);
        let rows = text(&busy);
        let has = |wanted: &str| rows.iter().any(|row| row.contains(wanted));
        assert!(has("planner"), "{rows:#?}");
        assert!(
            has("to the relay: 4.0 cells/s, 3.0 real, 1.0 cover"),
            "{rows:#?}"
        );
        assert!(
            has("from the relay: 5.0 cells/s, 2.0 real, 3.0 cover"),
            "{rows:#?}"
        );
        assert!(has("120 s ago") && has("now"), "{rows:#?}");
        // The last ten of 120 seconds, at the right.
        let real = columns(&busy, REAL);
        assert!(
            real.contains(&98) && real.iter().all(|x| *x >= 88),
            "{real:?}"
        );
        // The total goes on where it was, which is the whole point; cover makes room under it.
        assert!(
            columns(&quiet, TOTAL).is_empty(),
            "all of it is cover, which is drawn over it"
        );
        assert!(!columns(&busy, TOTAL).is_empty());
    }

    #[test]
    fn rates_are_by_the_second_however_long_a_look_took() {
        let mut late = second([2, 6], [0, 0]);
        late.ms = 2_000;

        assert_eq!(
            per_second(&late.sent, late.ms).map(|rate| format!("{rate:.1}")),
            ["4.0", "3.0", "1.0"]
        );
    }

    #[test]
    fn what_is_told_and_what_went_wrong_is_shown_and_bounded() {
        let mut plot = Plot::of("planner");
        let mut bad = second([0, 4], [0, 4]);
        (bad.over, bad.missing) = (21, 2);
        plot.note(bad);
        for number in 0..1_000 {
            plot.tell(&format!("message {number}"));
        }

        let rows = text(&drawn(&plot));

        assert_eq!(plot.told.len(), TOLD_MAX);
        let has = |wanted: &str| rows.iter().any(|row| row.contains(wanted));
        assert!(has("message 999") && !has("message 900"), "{rows:#?}");
        assert!(has("21 cells left beside the schedule"), "{rows:#?}");
        assert!(has("2 cells of cover taken out"), "{rows:#?}");
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_on() {
        let mut plot = Plot::of("planner");
        plot.note(second([1, 3], [0, 4]));
        plot.tell("* connected");
        for (width, height) in [(1, 1), (3, 4), (20, 8), (80, 24), (300, 100)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| plot.draw(frame)).unwrap();
        }
    }
}
