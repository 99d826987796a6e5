//! The shell: a prompt on a terminal, with history, completion, and notices that do not spoil the typed line.
//!
//! The editor blocks, so it has a thread of its own. Lines go to the commands and come back with a word when
//! they are answered, before the next prompt is shown.

use mini_torrent_common::names::PUBLIC_GROUP;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::{FileHistory, History};
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context as EditorContext, Editor, Event, EventContext, EventHandler,
    ExternalPrinter, Helper, Highlighter, Hinter, KeyEvent, Movement, RepeatCount, Validator,
};
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::command::{self, Command, Context};
use crate::error::CommandError;
use crate::output::{Notice, Outcome, PromptPrinter};
use crate::words;

/// Lines that the history keeps.
const HISTORY: usize = 1000;
/// An upload that takes longer goes on in the background.
const FOREGROUND_PATIENCE: Duration = Duration::from_secs(2);
/// How long completion waits for the tracker.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(500);

/// What the editor's thread hands over.
enum Typed {
    Line(String),
    /// Ctrl-D, or the terminal is gone.
    End,
    /// Ctrl-C on an empty line.
    Interrupt,
}

/// How the shell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By quit, exit or the end of the input.
    Quit,
    /// By Ctrl-C.
    Interrupted,
}

/// The editor, ready to show a prompt.
pub(crate) struct Shell {
    editor: Editor<Completion, FileHistory>,
    history: PathBuf,
}

impl Shell {
    /// Opens the terminal; returns also what prints above its prompt.
    pub(crate) fn open(history: PathBuf) -> Result<(Self, Option<PromptPrinter>), ReadlineError> {
        let config = Config::builder().max_history_size(HISTORY)?.history_ignore_space(true).auto_add_history(false);
        let mut editor = Editor::with_config(config.build())?;
        // The first start has no history.
        let _ = editor.load_history(&history);
        editor.bind_sequence(KeyEvent::ctrl('c'), EventHandler::Conditional(Box::new(ClearOrInterrupt)));
        let printer = editor.create_external_printer().ok().map(|mut printer| {
            Box::new(move |text: String| {
                let _ = printer.print(text);
            }) as PromptPrinter
        });
        Ok((Self { editor, history }, printer))
    }

    /// Reads and runs lines until the user quits.
    pub(crate) async fn run(self, context: Context) -> Ended {
        let (typed, mut lines) = mpsc::channel(1);
        let (answered, answers) = mpsc::channel(1);
        let editing = Editing { context: context.clone(), runtime: Handle::current(), typed, answers };
        std::thread::spawn(move || editing.run(self));
        let _ = answered.send(prompt(&context)).await;
        loop {
            match lines.recv().await {
                None | Some(Typed::End) => return Ended::Quit,
                Some(Typed::Interrupt) => return Ended::Interrupted,
                Some(Typed::Line(line)) => {
                    if run_line(&context, &line).await {
                        return Ended::Quit;
                    }
                }
            }
            let _ = answered.send(prompt(&context)).await;
        }
    }
}

fn prompt(context: &Context) -> String {
    match context.user.borrow().as_ref() {
        Some(user) => format!("{user}> "),
        None => "> ".to_owned(),
    }
}

/// Runs a line; says whether it was quit.
async fn run_line(context: &Context, line: &str) -> bool {
    let Some((name, parsed)) = command::parse(line) else { return false };
    let outcome = match parsed {
        Ok(Command::Quit) => return true,
        Ok(
            command @ (Command::UploadFile { .. }
            | Command::Share { .. }
            | Command::Send { .. }
            | Command::Get { .. }
            | Command::Verify { .. }),
        ) => match run_patiently(context, &name, command).await {
            Some(outcome) => outcome,
            None => return false,
        },
        Ok(command) => context.run(command).await,
        Err(error) => Err(error),
    };
    context.output.outcome(&name, outcome).await;
    false
}

/// Runs a command that may take long; after a while it goes on in the background and answers by a notice.
async fn run_patiently(context: &Context, name: &str, command: Command) -> Option<Outcome> {
    let (in_task, task_name) = (context.clone(), name.to_owned());
    let mut task = tokio::spawn(async move { in_task.run(command).await });
    match timeout(FOREGROUND_PATIENCE, &mut task).await {
        Ok(outcome) => Some(outcome.unwrap_or_else(|_| Err(CommandError::shutting_down()))),
        Err(_) => {
            let output = context.output.clone();
            output.remark(format!("{name} goes on in the background; show_downloads shows how far it is")).await;
            tokio::spawn(async move {
                let outcome = task.await.unwrap_or_else(|_| Err(CommandError::shutting_down()));
                output.notice(Notice::Background { command: task_name, outcome: Box::new(outcome) });
            });
            None
        }
    }
}

/// The editor's thread.
struct Editing {
    context: Context,
    runtime: Handle,
    typed: mpsc::Sender<Typed>,
    /// The next prompt, once the line before is answered.
    answers: mpsc::Receiver<String>,
}

impl Editing {
    fn run(mut self, shell: Shell) {
        let Shell { mut editor, history } = shell;
        let context = self.context.clone();
        editor.set_helper(Some(Completion { context, runtime: self.runtime.clone(), files: FilenameCompleter::new() }));
        while let Some(prompt) = self.answers.blocking_recv() {
            let typed = match editor.readline(&prompt) {
                Ok(line) => {
                    remember(&mut editor, &line, &history);
                    Typed::Line(line)
                }
                Err(ReadlineError::Interrupted) => Typed::Interrupt,
                Err(_) => Typed::End,
            };
            if self.typed.blocking_send(typed).is_err() {
                return;
            }
        }
    }
}

/// Keeps a line for the next start, unless a password may stand in it.
fn remember(editor: &mut Editor<Completion, FileHistory>, line: &str, path: &PathBuf) {
    let Some(kept) = without_secret(line) else { return };
    let added = editor.history_mut().add(&kept);
    if let Ok(true) = added
        && let Err(error) = editor.save_history(path)
    {
        tracing::warn!(%error, "the history is not kept");
    }
}

/// The line as the history may know it: of commands that take a password only what comes before it.
fn without_secret(line: &str) -> Option<String> {
    let words = words::split(line, None).ok()?;
    match words.first()?.as_str() {
        "create_user" | "login" => {
            Some(words.iter().take(2).map(|word| words::quote(word)).collect::<Vec<_>>().join(" "))
        }
        // A tracker's URL in a link may carry an announce key.
        "get" if words.get(1).is_some_and(|source| source.contains("tr=")) => None,
        // A mistyped command may have a password behind it.
        known if command::names().iter().any(|name| name == known) || known == "exit" => Some(line.to_owned()),
        _ => None,
    }
}

/// Ctrl-C clears the line; on an empty one it ends the client.
struct ClearOrInterrupt;

impl ConditionalEventHandler for ClearOrInterrupt {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        Some(match context.line().is_empty() {
            true => Cmd::Interrupt,
            false => Cmd::Kill(Movement::WholeLine),
        })
    }
}

/// Completes commands, groups, files and paths.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Completion {
    context: Context,
    runtime: Handle,
    files: FilenameCompleter,
}

/// What stands at a place of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Command,
    Group,
    File,
    /// A file that is shared with everybody.
    PublicFile,
    Path,
    Nothing,
}

/// What is completed after these words.
fn slot_after(words: &[String]) -> Slot {
    let Some(command) = words.first() else { return Slot::Command };
    match (command.as_str(), words.len()) {
        ("help", 1) => Slot::Command,
        ("upload_file" | "share" | "send" | "get", 1) | ("share" | "get" | "download", 2) => Slot::Path,
        ("download_file" | "export_torrent", 3) => Slot::Path,
        ("download" | "scrape" | "remove", 1) => Slot::PublicFile,
        ("upload_file", 2) => Slot::Group,
        ("download_file" | "stop_share" | "cancel_download" | "verify" | "wait" | "remove_file", 1) => Slot::Group,
        ("download_file" | "stop_share" | "cancel_download" | "verify" | "wait" | "remove_file", 2) => Slot::File,
        ("export_torrent" | "set_group", 1) => Slot::Group,
        ("export_torrent", 2) => Slot::File,
        ("join_group" | "leave_group" | "list_requests" | "accept_request" | "reject_request" | "list_files", 1)
        | ("remove_member" | "set_role" | "transfer_owner", 1) => Slot::Group,
        _ => Slot::Nothing,
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, editor: &EditorContext<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..at];
        let start = typed.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let Ok(words) = words::split(&typed[..start], None) else { return self.files.complete(line, at, editor) };
        let known = match slot_after(&words) {
            Slot::Path => return self.files.complete(line, at, editor),
            Slot::Command => command::names(),
            Slot::Group => self.groups(),
            Slot::File => self.names_of_files(words.get(1).map_or("", String::as_str)),
            Slot::PublicFile => self.names_of_files(PUBLIC_GROUP),
            Slot::Nothing => Vec::new(),
        };
        let word = &typed[start..];
        let fitting = known.into_iter().filter(|name| name.starts_with(word));
        let pairs = fitting.map(|name| Pair { replacement: words::quote(&name) + " ", display: name });
        Ok((start, pairs.collect()))
    }
}

impl Completion {
    /// Names that the tracker knows; none when it takes too long.
    fn ask<T>(&self, question: impl Future<Output = Result<Vec<T>, CommandError>>) -> Vec<T> {
        let answer = self.runtime.block_on(async { timeout(COMPLETION_PATIENCE, question).await });
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn groups(&self) -> Vec<String> {
        let groups = self.ask(self.context.fetch_groups());
        groups.into_iter().map(|group| group.name.as_str().to_owned()).collect()
    }

    fn names_of_files(&self, group: &str) -> Vec<String> {
        let Ok(group) = group.parse() else { return Vec::new() };
        let files = self.ask(self.context.fetch_files(&group));
        files.into_iter().map(|file| file.draft.name.as_str().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_never_enter_the_history() {
        assert_eq!(without_secret("login bob 'correct horse'").as_deref(), Some("login bob"));
        assert_eq!(without_secret("create_user bob hunter2hunter2").as_deref(), Some("create_user bob"));
        assert_eq!(without_secret("logn bob hunter2hunter2"), None);
        assert_eq!(without_secret("login bob 'unbalanced"), None);
        assert_eq!(without_secret("get 'magnet:?xt=x&tr=http%3A%2F%2Ft%2Fkey' ."), None);
        assert_eq!(without_secret("list_files 'a b'").as_deref(), Some("list_files 'a b'"));
    }

    #[test]
    fn each_place_of_a_command_completes_its_kind() {
        let words = |line: &str| words::split(line, None).unwrap();
        for (line, slot) in [
            ("", Slot::Command),
            ("help", Slot::Command),
            ("upload_file", Slot::Path),
            ("upload_file x", Slot::Group),
            ("download_file", Slot::Group),
            ("download_file g", Slot::File),
            ("download_file g f", Slot::Path),
            ("login", Slot::Nothing),
            ("share", Slot::Path),
            ("get x.torrent", Slot::Path),
            ("download", Slot::PublicFile),
            ("export_torrent g f", Slot::Path),
            ("set_group", Slot::Group),
        ] {
            assert_eq!(slot_after(&words(line)), slot, "{line}");
        }
    }
}
