//! Tables for a terminal.

use std::fmt::Write;

/// Lays out rows in columns, aligned to the right but for those in `left`. The first row is the
/// heading.
pub(crate) fn render(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let gap = if column == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = if left.contains(&column) {
                write!(line, "{gap}{cell:<width$}")
            } else {
                write!(line, "{gap}{cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 0 {
            let total = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
            text.push_str(&"-".repeat(total));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_short_rows_end_early() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: Vec<Vec<String>> =
            vec![row(&["stage", "p50", "p99"]), row(&["mount", "12.5", "1"]), row(&["µ", "7"])];
        let expected = "stage   p50  p99\n----------------\nmount  12.5    1\nµ         7\n";
        assert_eq!(render(&rows, &[0]), expected);
    }
}
