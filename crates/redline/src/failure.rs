//! What a failure is to the shell: one line on stderr and an exit code.

use std::process::ExitCode;

use crate::output::{self, Closed};

/// Something did not work.
pub(crate) const OPERATIONAL: u8 = 1;
/// The command line made no sense.
pub(crate) const USAGE: u8 = 2;
/// The output is wrong, whatever its speed.
pub(crate) const INCORRECT: u8 = 6;

/// The user asked for something that cannot be asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// A measured run whose output differs from what it must be.
#[derive(Debug, thiserror::Error)]
#[error("INCORRECT: {0}")]
pub(crate) struct Incorrect(pub(crate) String);

/// Reports a failure on stderr, and names the exit code of `result`.
pub(crate) fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // Whoever read our output has seen enough: `redline … | head` is no failure.
    if error.downcast_ref::<Closed>().is_some() {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("error: {}", one_line(&error)));
    ExitCode::from(code(&error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Usage>().is_some() {
        USAGE
    } else if error.downcast_ref::<Incorrect>().is_some() {
        INCORRECT
    } else {
        OPERATIONAL
    }
}

/// The chain of causes joined by colons, without what a cause merely repeats.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    output::printable(&line).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_kind_of_failure_keeps_its_code_under_context() {
        let operational = anyhow::anyhow!("disk full");
        let usage = anyhow::Error::new(Usage("no such flag".into())).context("while parsing");
        let incorrect = anyhow::Error::new(Incorrect("hashes differ".into())).context("tg128");
        assert_eq!(code(&operational), OPERATIONAL);
        assert_eq!(code(&usage), USAGE);
        assert_eq!(code(&incorrect), INCORRECT);
    }

    #[test]
    fn causes_stand_on_one_line_and_once() {
        let error = Err::<(), _>(std::io::Error::other("no space"))
            .context("cannot write a\nb: no space")
            .context("pull stopped")
            .unwrap_err();
        assert_eq!(one_line(&error), "pull stopped: cannot write a b: no space");
    }
}
