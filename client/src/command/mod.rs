//! The commands: one enum that the shell, scripts and completion share, and one way to run them.

mod account;
mod download;
mod get;
mod govern;
mod group;
mod keys;
mod line;
mod public;
mod share;

use clap::Subcommand;
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::names::{FileName, GroupName, PUBLIC_GROUP, UserName};
use mini_torrent_common::tracker_info::TrackerAddress;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::error::CommandError;
use crate::link::Link;
use crate::node::Node;
use crate::output::{Outcome, Output, Reply};

use govern::{GivenRole, GroupSetting, Switch};
use line::help;
pub(crate) use line::{names, parse};
pub(crate) use share::Hashings;

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
    /// Share a file in the group public and write its .mtorrent
    ///
    /// Every account is a member of the group public. The .mtorrent is plain text to be carried to others; without a name
    /// it is NAME.mtorrent in the current directory.
    Share {
        path: PathBuf,
        #[arg(id = "name.mtorrent")]
        mtorrent: Option<PathBuf>,
    },
    /// Share a file in the group public
    Send { path: PathBuf },
    /// Fetch by a .mtorrent, a .torrent or a magnet link
    ///
    /// A .mtorrent is of these trackers and needs a login. A .torrent or a magnet link may be of any tracker that is
    /// asked by http or udp (https trackers are not supported), needs no login, and is seeded when it is complete;
    /// show_downloads shows it with - in the group's place, and cancel_download with - and the file's name ends it.
    Get {
        /// x.mtorrent, x.torrent, or magnet:…
        #[arg(id = "torrent|magnet")]
        source: String,
        /// A directory, or a path in an existing one
        destination: PathBuf,
        /// Replace another file at the destination
        #[arg(long)]
        force: bool,
    },
    /// Fetch a file of the group public
    Download {
        file: String,
        /// A directory, or a path in an existing one; the current directory when left out
        destination: Option<PathBuf>,
        /// Replace another file at the destination
        #[arg(long)]
        force: bool,
    },
    /// Stop sharing a file in the group public
    ///
    /// Named by its .mtorrent, that is deleted; your file stays.
    Remove {
        /// x.mtorrent, or the file's name
        #[arg(id = "x.mtorrent|file")]
        target: String,
    },
    /// Count seeders and leechers of a file in the group public
    Scrape { file: String },
    /// The same as show_downloads, with another spelling
    #[command(hide = true)]
    Show {
        #[command(subcommand)]
        what: ShowCommand,
    },
    /// Change a setting of your group
    ///
    /// stock-clients: whether ordinary BitTorrent clients are admitted. Content and announce keys are then readable
    /// on the wire, and by whoever shares an admitted address.
    SetGroup { group: String, setting: GroupSetting, value: Switch },
    /// Write a .torrent for your own ordinary BitTorrent client
    ///
    /// It carries an announce key of yours, which opens this one file: keep it to yourself. keys lists your keys, and
    /// revoke_key ends one.
    ExportTorrent {
        group: String,
        file: String,
        #[arg(id = "out.torrent")]
        torrent: PathBuf,
    },
    /// List your announce keys
    Keys,
    /// End an announce key; its clients are let go of at once
    RevokeKey { id: String },
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
    /// The partial file of the download is removed. Of a foreign download, whose group is -, a finished file stays and is
    /// seeded no more.
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

/// The other spelling of show_downloads.
#[derive(Debug, Clone, Subcommand)]
#[command(rename_all = "snake_case", disable_help_subcommand = true)]
pub(crate) enum ShowCommand {
    /// List your downloads
    Downloads {
        /// Show progress, speed, peers and reasons
        #[arg(short, long)]
        verbose: bool,
    },
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
    /// As tracker_info.txt lists them.
    pub(crate) trackers: Arc<[TrackerAddress]>,
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
            Command::Share { path, mtorrent } => self.share(&path, mtorrent).await,
            Command::Send { path } => self.upload_file(&path, PUBLIC_GROUP, None).await,
            Command::Get { source, destination, force } => self.get(&source, &destination, force).await,
            Command::Download { file, destination, force } => {
                let destination = destination.unwrap_or_else(|| PathBuf::from("."));
                self.download_file(PUBLIC_GROUP, &file, &destination, force).await
            }
            Command::Remove { target } => self.remove(&target).await,
            Command::Scrape { file } => self.scrape(&file).await,
            Command::SetGroup { group, setting, value } => self.set_group(&group, setting, value).await,
            Command::ExportTorrent { group, file, torrent } => self.export_torrent(&group, &file, &torrent).await,
            Command::Keys => self.keys().await,
            Command::RevokeKey { id } => self.revoke_key(&id).await,
            Command::ShowDownloads { verbose } | Command::Show { what: ShowCommand::Downloads { verbose } } => {
                self.show_downloads(verbose || self.verbose).await
            }
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
