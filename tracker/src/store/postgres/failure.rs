//! What the failures of statements mean for their transaction.

use crate::store::StoreError;
use std::error::Error;
use tokio_postgres::error::SqlState;

/// Why a transaction cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It crossed another one; run again, it may succeed.
    Crossed,
    /// The connection is of no use any more; over another one it may succeed.
    Lost,
    /// It broke a rule of the schema, which is the caller's to deal with.
    Conflict,
    /// It cannot succeed.
    Broken,
}

impl Failure {
    /// Judges and logs an error.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let failure = match error.code() {
            None if error.is_closed() || is_of_the_connection(error) => Self::Lost,
            None => Self::Broken,
            Some(state) => Self::of_state(state),
        };
        match failure {
            Self::Crossed | Self::Conflict => tracing::debug!(error = %told(error), "a transaction cannot go on"),
            Self::Lost => tracing::warn!(error = %told(error), "a connection to the database is lost"),
            Self::Broken => tracing::error!(error = %told(error), "the store failed"),
        }
        failure
    }

    fn of_state(state: &SqlState) -> Self {
        match *state {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED | SqlState::LOCK_NOT_AVAILABLE => {
                Self::Crossed
            }
            // It ends, starts, became a replica, or knows the schema of before a migration.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::READ_ONLY_SQL_TRANSACTION
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            | SqlState::QUERY_CANCELED
            | SqlState::FEATURE_NOT_SUPPORTED => Self::Lost,
            // Connection exceptions, and constraints.
            ref other if other.code().starts_with("08") => Self::Lost,
            ref other if other.code().starts_with("23") => Self::Conflict,
            _ => Self::Broken,
        }
    }

    /// What the transaction's method sees of it.
    pub(super) fn told(self) -> StoreError {
        if self == Self::Conflict { StoreError::Conflict } else { StoreError::Unavailable }
    }
}

fn is_of_the_connection(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}

/// An error with its causes, on one line. Neither names a password.
pub(in crate::store) fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_say_whether_another_attempt_makes_sense() {
        for (state, expected) in [
            ("40001", Failure::Crossed),
            ("40P01", Failure::Crossed),
            ("57P01", Failure::Lost),
            ("08006", Failure::Lost),
            ("25006", Failure::Lost),
            ("23505", Failure::Conflict),
            ("23503", Failure::Conflict),
            ("42P01", Failure::Broken),
        ] {
            assert_eq!(Failure::of_state(&SqlState::from_code(state)), expected, "{state}");
        }
    }
}
