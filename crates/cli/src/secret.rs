//! Where secrets come from: environment, file, stdin, or a question on a terminal. Never from the
//! command line, which every process of the machine can read.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use crate::exit::Failure;

/// `NAME`, or the content of the file that `NAME_FILE` names.
pub(crate) fn from_environment(name: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let file_name = format!("{name}_FILE");
    match (variable(name), variable(&file_name)) {
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "{name} and {file_name} are both set: unset one"
        ))),
        (Some(value), None) => value
            .into_string()
            .map(|value| Some(Zeroizing::new(value)))
            .map_err(|_| Failure::usage(format!("{name} is not UTF-8"))),
        (None, Some(path)) => fs::read_to_string(path)
            .map(|text| Some(first_line(&Zeroizing::new(text))))
            .map_err(|error| Failure::usage(format!("the file of {file_name}: {}", error.kind()))),
        (None, None) => Ok(None),
    }
}

/// The first line of stdin.
pub(crate) fn from_stdin() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    Ok(first_line(&line))
}

/// Asks on a terminal; `None` where nobody could answer.
pub(crate) fn asked(question: &str, hidden: bool) -> Result<Option<Zeroizing<String>>, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    write!(io::stderr(), "{question}: ")?;
    let silence = if hidden {
        Some(Silence::begin()?)
    } else {
        None
    };
    let answer = from_stdin();
    if silence.is_some() {
        writeln!(io::stderr())?;
    }
    answer.map(Some)
}

/// The terminal does not show what is typed. `stty` does this, so that no unsafe code must.
struct Silence;

impl Silence {
    fn begin() -> Result<Self, Failure> {
        if stty("-echo") {
            Ok(Self)
        } else {
            Err(Failure::usage(
                "the terminal cannot be kept from showing a password: give it by stdin, file or environment",
            ))
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(mode: &str) -> bool {
    Command::new("stty")
        .arg(mode)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}
