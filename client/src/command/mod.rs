//! The commands: one enum that the shell, scripts and completion share, and one way to run them.

mod account;
mod download;
mod govern;
mod group;
mod share;

use clap::{CommandFactory, Parser, Subcommand};
use mini_torrent_common::control::Response;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::names::{FileName, GroupName, UserName};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

use crate::error::CommandError;
use crate::link::Link;
use crate::node::Node;
use crate::output::{Outcome, Output, Reply};
use crate::words;

use govern::GivenRole;
pub(crate) use share::Hashings;

/// Longest distance in edits at which a mistyped command is still recognised.
const NEAR: usize = 3;

/// One line of the shell or a script.
#[derive(Debug, Parser)]
#[command(multicall = true, disable_help_subcommand = true, disable_help_flag = true, name = "")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// Everything that can be asked for.
#[derive(Debug, Clone, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum Command {
    /// Create an account; no sign-in follows
    CreateUser {
        // What looks like an option is answered as a bad name.
        #[arg(allow_hyphen_values = true)]
        user: String,
        /// Asked for, unechoed, when left out
        #[arg(allow_hyphen_values = true)]
        password: Option<String>,
    },
    /// Sign in and share everything again
    ///
    /// Everything that was shared before is shared again, and unfinished downloads go on.
    Login {
        user: String,
        /// Asked for, unechoed, when left out
        #[arg(allow_hyphen_values = true)]
        password: Option<String>,
        /// End your session on another client
        #[arg(long)]
        takeover: bool,
    },
    /// Sign out; everything pauses until the next login
    ///
    /// Shares are withdrawn and downloads pause; the next login restores both.
    Logout {
        /// End your sessions on all clients, and what they were admitted with
        #[arg(long)]
        everywhere: bool,
    },
    /// List where you are signed in
    Sessions,
    /// Create a group; you own it
    CreateGroup {
        #[arg(allow_hyphen_values = true)]
        group: String,
    },
    /// Ask the owner of a group to let you in
    JoinGroup { group: String },
    /// Leave a group, or withdraw your request
    ///
    /// When the owner leaves, the longest-standing admin, else member, becomes the owner; with the last member
    /// the group goes. Files on your disk stay.
    LeaveGroup { group: String },
    /// List who asks to join a group of yours
    ListRequests { group: String },
    /// The same as list_requests, with another spelling
    #[command(hide = true)]
    Requests {
        #[command(subcommand)]
        list: RequestsCommand,
    },
    /// Let somebody into your group
    AcceptRequest { group: String, user: String },
    /// Turn somebody away from your group
    RejectRequest { group: String, user: String },
    /// End somebody's membership
    ///
    /// Members' clients stop serving them within two seconds. Files that they have already stay on their disk.
    /// Owners remove anybody, admins remove members.
    RemoveMember { group: String, user: String },
    /// Make a member an admin, or an admin a member
    ///
    /// Admins let people in, remove members and remove files. Only the owner gives and takes roles.
    SetRole { group: String, user: String, role: GivenRole },
    /// Make a member the owner; you stay as an admin
    TransferOwner { group: String, user: String },
    /// End a file's listing and everybody's shares of it
    ///
    /// For owners and admins, and for the uploader while nobody else shares the file. Files on disks stay.
    RemoveFile { group: String, file: String },
    /// List all groups
    ListGroups {
        /// Show owner, members and your role
        #[arg(short, long)]
        verbose: bool,
    },
    /// List the files of a group
    ListFiles {
        group: String,
        /// Show size, seeders, leechers and uploader
        #[arg(short, long)]
        verbose: bool,
    },
    /// Share a file with a group
    UploadFile {
        path: PathBuf,
        group: String,
        /// The name in the group, if not the file's own
        #[arg(long = "as", value_name = "name")]
        name: Option<String>,
    },
    /// Fetch a file in the background
    ///
    /// Returns at once. Data goes to a hidden file, .NAME.part, beside the destination until the file is complete and verified.
    DownloadFile {
        group: String,
        file: String,
        /// A directory, or a path in an existing one
        destination: PathBuf,
        /// Replace another file at the destination
        #[arg(long)]
        force: bool,
    },
    /// List your downloads
    ///
    /// D is downloading, C complete, F failed for good. With details also what is being hashed, U.
    ShowDownloads {
        /// Show progress, speed, peers and reasons
        #[arg(short, long)]
        verbose: bool,
    },
    /// Stop a download, or the hashing of an upload
    ///
    /// The partial file of the download is removed.
    CancelDownload { group: String, file: String },
    /// Stop sharing a file for good
    ///
    /// The next login does not share it again. When nobody shares it any more, the group's listing goes.
    StopShare { group: String, file: String },
    /// Check a file of yours against its hashes
    ///
    /// Reads a file that you share or have fetched and compares pieces, SHA-1 and SHA-256.
    Verify { group: String, file: String },
    /// Wait until all downloads, or one, have ended
    Wait {
        #[arg(requires = "file")]
        group: Option<String>,
        file: Option<String>,
        /// Give up after so many seconds
        #[arg(long, value_name = "S", value_parser = parse_seconds)]
        timeout: Option<Duration>,
    },
    /// Explain the commands, or one of them
    Help { command: Option<String> },
    /// End the client; downloads go on next time
    #[command(alias = "exit")]
    Quit,
}

/// The other spelling of list_requests.
#[derive(Debug, Clone, Subcommand)]
#[command(rename_all = "snake_case", disable_help_subcommand = true)]
pub(crate) enum RequestsCommand {
    /// List who asks to join a group of yours
    ListRequests { group: String },
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// What commands work with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) link: Link,
    pub(crate) node: Node,
    pub(crate) output: Output,
    /// Replies are JSON.
    pub(crate) json: bool,
    /// Details in lists: on a terminal, or asked for.
    pub(crate) verbose: bool,
    /// Who is signed in, as the node knows; the tracker is who enforces it.
    pub(crate) user: watch::Receiver<Option<UserName>>,
    pub(crate) hashings: Hashings,
}

/// Reads a line: the command's name, and the command. Nothing for a blank line.
pub(crate) fn parse(line: &str) -> Option<(String, Result<Command, CommandError>)> {
    let home = std::env::var("HOME").ok();
    let words = match words::split(line, home.as_deref()) {
        Ok(words) => words,
        Err(error) => {
            let name = line.split_whitespace().next().unwrap_or_default().to_owned();
            return Some((name, Err(CommandError::new(ErrorCode::Usage, error.to_string()))));
        }
    };
    let name = words.first()?.clone();
    let parsed = Line::try_parse_from(&words).map(|line| line.command);
    Some((name.clone(), parsed.map_err(|error| usage_error(&name, &error))))
}

/// The form of a known command, or the nearest name.
fn usage_error(name: &str, error: &clap::Error) -> CommandError {
    let mut line = Line::command();
    line.build();
    let text = match line.find_subcommand(name) {
        Some(command) => {
            let form = form_of(command);
            match error.kind() {
                clap::error::ErrorKind::ValueValidation => {
                    format!("{}; usage: {form}", error.to_string().lines().next().unwrap_or_default())
                }
                _ => format!("usage: {form}"),
            }
        }
        None => {
            let names = line.get_subcommands().filter(|command| !command.is_hide_set());
            let nearest = names.map(|command| (edits(name, command.get_name()), command.get_name())).min();
            match nearest.filter(|(distance, _)| *distance <= NEAR) {
                Some((_, nearest)) => format!("unknown command '{name}'; did you mean {nearest}?"),
                None => format!("unknown command '{name}'; help lists them"),
            }
        }
    };
    CommandError::new(ErrorCode::Usage, text)
}

/// How a command is written: `download_file <group> <file> <destination> [--force]`.
fn form_of(command: &clap::Command) -> String {
    let mut form = command.get_name().to_owned();
    for positional in command.get_positionals() {
        let words = positional.get_possible_values();
        let words: Vec<_> = words.iter().map(clap::builder::PossibleValue::get_name).collect();
        let name = if words.is_empty() { positional.get_id().to_string() } else { words.join("|") };
        form += &if positional.is_required_set() { format!(" <{name}>") } else { format!(" [<{name}>]") };
    }
    for option in command.get_arguments().filter(|argument| !argument.is_positional()) {
        let long = option.get_long().unwrap_or_default();
        let value = option.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
        form += &match option.get_action().takes_values() {
            true => format!(" [--{long} <{value}>]"),
            false => format!(" [--{long}]"),
        };
    }
    form
}

/// Levenshtein's distance: insertions, deletions and replacements between two words.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// The names that completion and help offer.
pub(crate) fn names() -> Vec<String> {
    let line = Line::command();
    line.get_subcommands().filter(|command| !command.is_hide_set()).map(|c| c.get_name().to_owned()).collect()
}

impl Context {
    /// Runs a command. `quit` is not among them: it ends who reads the lines.
    pub(crate) async fn run(&self, command: Command) -> Outcome {
        match command {
            Command::CreateUser { user, password } => self.create_user(&user, password).await,
            Command::Login { user, password, takeover } => self.login(&user, password, takeover).await,
            Command::Logout { everywhere: false } => self.logout().await,
            Command::Logout { everywhere: true } => self.logout_everywhere().await,
            Command::Sessions => self.sessions().await,
            Command::CreateGroup { group } => self.create_group(&group).await,
            Command::JoinGroup { group } => self.join_group(&group).await,
            Command::LeaveGroup { group } => self.leave_group(&group).await,
            Command::ListRequests { group } | Command::Requests { list: RequestsCommand::ListRequests { group } } => {
                self.list_requests(&group).await
            }
            Command::AcceptRequest { group, user } => self.accept_request(&group, &user).await,
            Command::RejectRequest { group, user } => self.reject_request(&group, &user).await,
            Command::RemoveMember { group, user } => self.remove_member(&group, &user).await,
            Command::SetRole { group, user, role } => self.set_role(&group, &user, role).await,
            Command::TransferOwner { group, user } => self.transfer_owner(&group, &user).await,
            Command::RemoveFile { group, file } => self.remove_file(&group, &file).await,
            Command::ListGroups { verbose } => self.list_groups(verbose || self.verbose).await,
            Command::ListFiles { group, verbose } => self.list_files(&group, verbose || self.verbose).await,
            Command::UploadFile { path, group, name } => self.upload_file(&path, &group, name.as_deref()).await,
            Command::DownloadFile { group, file, destination, force } => {
                self.download_file(&group, &file, &destination, force).await
            }
            Command::ShowDownloads { verbose } => self.show_downloads(verbose || self.verbose).await,
            Command::CancelDownload { group, file } => self.cancel_download(&group, &file).await,
            Command::StopShare { group, file } => self.stop_share(&group, &file).await,
            Command::Verify { group, file } => self.verify(&group, &file).await,
            Command::Wait { group, file, timeout } => self.wait(group.zip(file), timeout).await,
            Command::Help { command } => help(command.as_deref()),
            Command::Quit => Ok(Reply::default()),
        }
    }

    /// Who is signed in here.
    fn signed_in(&self) -> Result<UserName, CommandError> {
        self.user
            .borrow()
            .clone()
            .ok_or_else(|| CommandError::new(ErrorCode::NotLoggedIn, "log in first: login <user>"))
    }
}

fn help(name: Option<&str>) -> Outcome {
    let mut line = Line::command();
    line.build();
    let text = match name {
        Some(name) => {
            let unknown = || CommandError::new(ErrorCode::Usage, format!("unknown command '{name}'; help lists them"));
            let command = line.find_subcommand_mut(name).ok_or_else(unknown)?;
            let form = form_of(command);
            command.clone().override_usage(form).render_long_help().to_string()
        }
        None => overview(&line),
    };
    let lines = text.trim_end().lines().map(str::to_owned).collect();
    Ok(Reply::lines(lines, json!({ "text": text.trim_end() })))
}

/// Every command's form and purpose, one a line.
fn overview(line: &clap::Command) -> String {
    let forms = line.get_subcommands().filter(|command| !command.is_hide_set()).map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<53} {about}\n", form_of(command))
    });
    let mut text: String = forms.collect();
    text.push_str("\nWords are split as in a shell: 'a b', \"a b\", a\\ b. help <command> tells more of one.");
    text
}

fn group_name(text: &str) -> Result<GroupName, CommandError> {
    text.parse().map_err(|error| CommandError::new(ErrorCode::InvalidName, format!("group '{text}': {error}")))
}

/// A group that must exist: what is no name is no group either.
fn known_group(text: &str) -> Result<GroupName, CommandError> {
    text.parse().map_err(|_| CommandError::new(ErrorCode::NoSuchGroup, format!("there is no group '{text}'")))
}

fn user_name(text: &str) -> Result<UserName, CommandError> {
    text.parse().map_err(|error| CommandError::new(ErrorCode::InvalidName, format!("user '{text}': {error}")))
}

fn file_name(text: &str) -> Result<FileName, CommandError> {
    text.parse().map_err(|error| CommandError::new(ErrorCode::InvalidName, format!("file '{text}': {error}")))
}

/// A file that must exist: what is no name is no file either.
fn known_file(text: &str) -> Result<FileName, CommandError> {
    text.parse().map_err(|_| CommandError::new(ErrorCode::NoSuchFile, format!("there is no file '{text}'")))
}

/// The tracker answered with another kind of answer than the request has.
pub(crate) fn unexpected(_: Response) -> CommandError {
    CommandError::new(ErrorCode::Internal, "the tracker's answer does not fit the request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> CommandError {
        parse(line).unwrap().1.unwrap_err()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn wrong_arity_answers_with_the_form() {
        assert_eq!(error("download_file g").message, "usage: download_file <group> <file> <destination> [--force]");
        assert_eq!(error("logout now").message, "usage: logout [--everywhere]");
        assert_eq!(error("set_role lab bob").message, "usage: set_role <group> <user> <admin|member>");
        assert_eq!(error("wait --timeout x").code, ErrorCode::Usage);
        assert_eq!(error("wait g").code, ErrorCode::Usage);
    }

    #[test]
    fn an_unknown_command_answers_with_the_nearest() {
        assert_eq!(error("uplod_file x g").message, "unknown command 'uplod_file'; did you mean upload_file?");
        assert_eq!(error("frobnicate").message, "unknown command 'frobnicate'; help lists them");
    }

    #[test]
    fn nothing_of_an_unbalanced_line_is_executed() {
        assert_eq!(error("create_group 'a").message, "unbalanced quotes");
        assert!(parse("   ").is_none());
    }

    #[test]
    fn both_spellings_of_requests_and_quit_are_known() {
        assert!(matches!(parse("requests list_requests g").unwrap().1.unwrap(), Command::Requests { .. }));
        assert!(matches!(parse("exit").unwrap().1.unwrap(), Command::Quit));
        assert!(matches!(parse("login bob -x-").unwrap().1.unwrap(), Command::Login { password: Some(_), .. }));
    }

    #[test]
    fn help_lists_every_command_and_explains_each() {
        let text = help(None).unwrap().text.join("\n");
        for name in names() {
            assert!(text.contains(&name), "{name}");
            assert!(!help(Some(&name)).unwrap().text.is_empty(), "{name}");
        }
        assert_eq!(help(Some("nothing")).unwrap_err().code, ErrorCode::Usage);
    }
}
