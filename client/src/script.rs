//! Script mode: one command a line from a file or a pipe, no prompt.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::command::{self, Command, Context};
use crate::error::CommandError;
use mini_torrent_common::error_code::ErrorCode;

/// Longest line in bytes.
const MAX_LINE_LENGTH: u64 = 64 * 1024;

/// What a script came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Whether some command failed.
    pub(crate) any_failed: bool,
}

/// Runs lines until `quit` or the end of the input. A failed command does not stop it, unless `fail_fast`.
pub(crate) async fn run(mut lines: impl AsyncBufRead + Unpin, context: &Context, fail_fast: bool) -> Tally {
    let mut tally = Tally::default();
    loop {
        let (name, parsed) = match next_line(&mut lines).await {
            Ok(None) => return tally,
            Ok(Some(line)) => match command::parse(&line) {
                None => continue,
                Some(parsed) => parsed,
            },
            Err(error) => {
                let failed = CommandError::new(ErrorCode::Usage, error.to_string());
                if error.kind() != io::ErrorKind::InvalidData {
                    context.output.outcome("", Err(failed)).await;
                    return Tally { any_failed: true };
                }
                (String::new(), Err(failed))
            }
        };
        let outcome = match parsed {
            Ok(Command::Quit) => return tally,
            Ok(command) => context.run(command).await,
            Err(error) => Err(error),
        };
        let failed = outcome.is_err();
        tally.any_failed |= failed;
        context.output.outcome(&name, outcome).await;
        if failed && fail_fast {
            return tally;
        }
    }
}

/// The next line; nothing at the end. What is longer than a line may be ends the input after one error.
async fn next_line(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut limited = tokio::io::AsyncReadExt::take(&mut *lines, MAX_LINE_LENGTH);
    let n_read = limited.read_until(b'\n', &mut bytes).await?;
    if n_read as u64 == MAX_LINE_LENGTH && !bytes.ends_with(b"\n") {
        pass_over_line(lines).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 KiB"));
    }
    match n_read {
        0 => Ok(None),
        _ => String::from_utf8(without_line_end(bytes))
            .map(Some)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line is not UTF-8")),
    }
}

fn without_line_end(mut line: Vec<u8>) -> Vec<u8> {
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    line
}

/// Drops the rest of a line, so that it is not taken for commands.
async fn pass_over_line(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    loop {
        let buffered = lines.fill_buf().await?;
        if buffered.is_empty() {
            return Ok(());
        }
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let n_dropped = end.map_or(buffered.len(), |at| at + 1);
        lines.consume(n_dropped);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<Result<String, String>> {
        let mut input = io::Cursor::new(input.to_vec());
        let mut all = Vec::new();
        loop {
            match next_line(&mut input).await {
                Ok(None) => return all,
                Ok(Some(line)) => all.push(Ok(line)),
                Err(error) => all.push(Err(error.to_string())),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_or_the_input() {
        assert_eq!(lines(b"a\nb").await, [Ok("a".into()), Ok("b".into())]);
        assert_eq!(lines(b"\xff\nb").await, [Err("a line is not UTF-8".into()), Ok("b".into())]);
        let long = [&b"x".repeat(200_000)[..], b"\nb"].concat();
        assert_eq!(lines(&long).await, [Err("a line is longer than 64 KiB".into()), Ok("b".into())]);
    }
}
