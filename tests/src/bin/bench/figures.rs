//! Measured values, and the table of their medians.

use std::fmt;

/// What is wished of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// At least as much as another row's median.
    NoWorseThan(&'static str),
    /// Nothing; it is only shown.
    None,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    goal: Goal,
    values: Vec<f64>,
}

/// All rows, in the order of their first value.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: Vec<Row>,
}

impl Figures {
    /// Adds a value to a row.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, goal: Goal, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { name: name.to_owned(), unit, goal, values: vec![value] }),
        }
    }

    fn median_of(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(Row::median)
    }

    fn goal_text(&self, row: &Row) -> (String, Option<bool>) {
        let median = row.median();
        match row.goal {
            Goal::AtLeast(least) => (format!(">= {}", shown(least)), Some(median >= least)),
            Goal::AtMost(most) => (format!("<= {}", shown(most)), Some(median <= most)),
            Goal::NoWorseThan(other) => match self.median_of(other) {
                Some(other_median) => {
                    let ratio = median / other_median;
                    // Both medians vary by some percent from run to run.
                    (format!(">= {other}: x{ratio:.2}"), Some(ratio >= 0.97))
                }
                None => (format!(">= {other}"), None),
            },
            Goal::None => (String::new(), None),
        }
    }
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self) -> f64 {
        let values = self.sorted();
        let middle = values.len() / 2;
        match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        }
    }
}

/// A value with three digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| what | median (min..max) | unit | n | goal | reached |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let values = row.sorted();
            let range = match (values.first(), values.last()) {
                (Some(least), Some(most)) if values.len() > 1 => format!(" ({}..{})", shown(*least), shown(*most)),
                _ => String::new(),
            };
            let (goal, reached) = self.goal_text(row);
            let reached = reached.map_or("", |reached| if reached { "yes" } else { "NO" });
            let (name, unit, n) = (&row.name, row.unit, values.len());
            writeln!(f, "| {name} | {}{range} | {unit} | {n} | {goal} | {reached} |", shown(row.median()))?;
        }
        Ok(())
    }
}
