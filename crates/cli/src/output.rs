//! The two ways out: results to stdout, talk to stderr. Nothing else in this program prints.
//!
//! Text that others wrote is shown so that it cannot play tricks on a terminal or pass for a line
//! of ours; with `--json` it is exact.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use comfy_table::{Table, presets};
use serde::Serialize;
use skytale_api::clock::{Clock, rfc3339};

use crate::{args::Everywhere, exit::Failure};

/// How this run prints.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a wish of its own of whoever runs this"
)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    colour: bool,
    /// Whether stderr is for a collector of logs.
    log_json: bool,
}

#[expect(
    clippy::unused_self,
    reason = "whoever prints must have been handed the way out"
)]
impl Output {
    pub(crate) fn new(everywhere: &Everywhere) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json: everywhere.json,
            quiet: everywhere.quiet,
            colour: !plain && io::stdout().is_terminal(),
            log_json: logs_json(everywhere),
        }
    }

    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// One result in both forms; only the wanted one is made.
    pub(crate) fn result<T: Serialize>(
        self,
        json: &T,
        plain: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.json_line(json)
        } else {
            self.line(&plain())
        }
    }

    /// Writes a line to stdout. When this returns, whoever reads stdout has it or can get it.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        write_line(text.as_bytes())
    }

    pub(crate) fn json_line<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        let line =
            serde_json::to_vec(value).map_err(|_| Failure::failed("no JSON could be made"))?;
        write_line(&line)
    }

    /// Talk: what a person wants to know and a program does not need.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            self.speak("INFO", text);
        }
    }

    /// What must be said even when quiet.
    pub(crate) fn complain(self, text: &str) {
        self.speak("WARN", text);
    }

    /// Where logs are lines of JSON, talk is such a line too: a collector takes no others.
    fn speak(self, level: &str, text: &str) {
        let mut stderr = io::stderr().lock();
        // When stderr is gone too, there is nobody left to tell.
        let _ = if self.log_json {
            let line = serde_json::json!({
                "timestamp": rfc3339(Clock::system().now()),
                "level": level,
                "message": text,
                "target": "skytale",
            });
            writeln!(stderr, "{line}")
        } else {
            writeln!(stderr, "{text}")
        };
    }

    /// Says why, and ends.
    pub(crate) fn end(self, result: Result<(), Failure>) -> ExitCode {
        let Err(failure) = result else {
            return ExitCode::SUCCESS;
        };
        if self.json && !self.log_json {
            let error = serde_json::json!({
                "error": {
                    "code": failure.code(),
                    "detail": failure.to_string(),
                    "exit": failure.exit() as u8,
                }
            });
            self.complain(&error.to_string());
        } else {
            self.complain(&format!("skytale: {failure}"));
        }
        failure.exit().into()
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.painted("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.painted("32", text)
    }

    fn painted(self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether a flag or the environment asks for logs as JSON.
pub(crate) fn logs_json(everywhere: &Everywhere) -> bool {
    let variable = std::env::var_os("SKYTALE_LOG_JSON");
    everywhere.log_json || variable.is_some_and(|it| !it.is_empty() && it != "0")
}

/// A table in the house's style.
pub(crate) fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table
}

/// What somebody else wrote, for a terminal: control characters become visible, and further lines
/// are indented, so that none of them looks like a message of its own.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\n  "),
            '\t' => shown.push('\t'),
            c if c.is_control() || is_invisible(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that turn the direction of what follows: with them, text reads otherwise than it is.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn write_line(line: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(line)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    written.map_err(|error| Failure::failed(format!("stdout does not take it: {}", error.kind())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_steer_a_terminal_or_fake_a_line() {
        let shown = harmless("a\u{1b}[2Jb\r\nplanner: pay\u{202e}");

        assert_eq!(shown, "a\\u{1b}[2Jb\\u{d}\n  planner: pay\\u{202e}");
        assert_eq!(harmless("grüße\t✓"), "grüße\t✓");
    }
}
