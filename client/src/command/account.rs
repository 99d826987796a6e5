//! Accounts and sessions: create_user, login, logout, sessions.

use mini_torrent_common::control::{Request, Response};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::escape::Escaped;
use mini_torrent_common::secret::Password;
use serde_json::json;
use std::io::IsTerminal;
use tokio::task::spawn_blocking;

use super::group::{rfc3339, table};
use super::{Context, user_name};
use crate::error::CommandError;
use crate::output::{Outcome, Reply};

impl Context {
    pub(super) async fn create_user(&self, user: &str, password: Option<String>) -> Outcome {
        let user = user_name(user)?;
        let password = match password {
            Some(password) => Password::new(password),
            None => {
                let first = ask("password: ").await?;
                if ask("again: ").await? != first {
                    return Err(CommandError::new(ErrorCode::Usage, "the two passwords differ"));
                }
                first
            }
        };
        self.link.request(Request::CreateUser { user: user.clone(), password }).await?;
        Ok(Reply::line(format!("user {user} created"), json!({ "user": user.as_str() })))
    }

    pub(super) async fn login(&self, user: &str, password: Option<String>, takeover: bool) -> Outcome {
        let wrong = |_| CommandError::new(ErrorCode::WrongCredentials, "unknown user or wrong password");
        let user = user.parse().map_err(wrong)?;
        let password = match password {
            Some(password) => Password::new(password),
            None => ask("password: ").await?,
        };
        let session = match self.link.request(Request::Login { user, password, takeover }).await? {
            Response::SignedIn(session) => session,
            other => return Err(CommandError::unexpected(other)),
        };
        let n_shares = match self.node.sign_in(session.user.clone()).await {
            Ok(n_shares) => n_shares,
            Err(error) => {
                // The tracker must not take us for signed in when nothing here is.
                let _ = self.link.request(Request::Logout).await;
                return Err(error);
            }
        };
        let text = format!("logged in as {}; sharing {n_shares} files", session.user);
        Ok(Reply::line(text, json!({ "user": session.user.as_str(), "shares": n_shares })))
    }

    pub(super) async fn logout(&self) -> Outcome {
        let user = self.signed_in()?;
        // Everything stops first, so that nothing is served or announced without a session.
        self.hashings.running().iter().for_each(|hashing| hashing.progress.cancel());
        self.node.sign_out().await?;
        match self.link.request(Request::Logout).await {
            // A tracker that is gone, or has forgotten the session with its connection, has nothing to end.
            Ok(_) => {}
            Err(error) if matches!(error.code, ErrorCode::TrackerUnreachable | ErrorCode::NotLoggedIn) => {}
            Err(error) => return Err(error),
        }
        Ok(Reply::line("logged out", json!({ "user": user.as_str() })))
    }

    pub(super) async fn logout_everywhere(&self) -> Outcome {
        let user = self.signed_in()?;
        // The tracker first: without it nothing ends anywhere else.
        self.link.request(Request::LogoutEverywhere).await?;
        self.hashings.running().iter().for_each(|hashing| hashing.progress.cancel());
        self.node.sign_out().await?;
        Ok(Reply::line("logged out everywhere", json!({ "user": user.as_str() })))
    }

    pub(super) async fn sessions(&self) -> Outcome {
        self.signed_in()?;
        let sessions = match self.link.request(Request::ListSessions).await? {
            Response::Sessions(sessions) => sessions,
            other => return Err(CommandError::unexpected(other)),
        };
        let rows = sessions.iter().map(|session| {
            let address = Escaped(&session.address).to_string();
            let client = Escaped(&session.agent).to_string();
            let here = if session.current { "this client" } else { "" };
            vec![address, client, rfc3339(session.since_ms), here.to_owned()]
        });
        let text = table(&["ADDRESS", "CLIENT", "SINCE", ""], rows);
        let rows = sessions.iter().map(|session| {
            json!({
                "address": session.address, "client": session.agent, "since": rfc3339(session.since_ms),
                "current": session.current,
            })
        });
        Ok(Reply::lines(text, json!({ "sessions": rows.collect::<Vec<_>>() })))
    }
}

/// Asks for a password on the terminal, unechoed.
async fn ask(prompt: &'static str) -> Result<Password, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::new(ErrorCode::Usage, "a password is needed where none can be asked for"));
    }
    let asked = spawn_blocking(move || rpassword::prompt_password(prompt)).await;
    let typed = asked.map_err(|_| CommandError::shutting_down())?;
    typed.map(Password::new).map_err(|error| CommandError::new(ErrorCode::Io, error.to_string()))
}
