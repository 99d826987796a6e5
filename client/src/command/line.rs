//! Lines as they are typed: reading them into commands, and explaining the commands.

use clap::{CommandFactory, Parser};
use mini_torrent_common::error_code::ErrorCode;
use serde_json::json;

use super::Command;
use crate::error::CommandError;
use crate::output::{Outcome, Reply};
use crate::words;

/// Longest distance in edits at which a mistyped command is still recognised.
const NEAR: usize = 3;

/// One line of the shell or a script.
#[derive(Debug, Parser)]
#[command(multicall = true, disable_help_subcommand = true, disable_help_flag = true, name = "")]
struct Line {
    #[command(subcommand)]
    command: Command,
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
    if let Some(only) = command.get_subcommands().find(|word| word.get_name() != "help") {
        return format!("{form} {}", form_of(only));
    }
    for positional in command.get_positionals() {
        let words = positional.get_possible_values();
        let words: Vec<_> = words.iter().map(clap::builder::PossibleValue::get_name).collect();
        let name = match words[..] {
            [] => format!("<{}>", positional.get_id()),
            // What is always the same is typed as it stands.
            [word] => word.to_owned(),
            _ => format!("<{}>", words.join("|")),
        };
        form += &if positional.is_required_set() { format!(" {name}") } else { format!(" [{name}]") };
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

pub(super) fn help(name: Option<&str>) -> Outcome {
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
        assert_eq!(error("get x").message, "usage: get <torrent|magnet> <destination> [--force]");
        assert_eq!(error("show uploads").message, "usage: show downloads [--verbose]");
        assert_eq!(error("share").message, "usage: share <path> [<name.mtorrent>]");
        assert_eq!(error("set_group lab stock-clients").message, "usage: set_group <group> stock-clients <on|off>");
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
        assert!(matches!(parse("show downloads").unwrap().1.unwrap(), Command::Show { .. }));
        assert!(matches!(parse("exit").unwrap().1.unwrap(), Command::Quit));
        assert!(matches!(parse("login bob -x-").unwrap().1.unwrap(), Command::Login { password: Some(_), .. }));
    }

    #[test]
    fn the_readme_lists_the_commands_as_help_does() {
        let text = help(None).unwrap().text.join("\n");
        let (commands, _) = text.split_once("\n\n").unwrap();
        assert!(include_str!("../../../README.md").contains(commands), "{commands}");
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
