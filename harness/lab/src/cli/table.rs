//! Columns, as kubectl aligns them.

/// Rows under a heading; cells of the last column are as long as they are.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let rows = std::iter::once(&heading).chain(rows);
    let mut widths = [0; N];
    for row in rows.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let megabytes = bytes as f64 / f64::from(1 << 20);
    if megabytes < 10.0 {
        return format!("{megabytes:.1} MiB");
    }
    if megabytes < 1024.0 {
        return format!("{megabytes:.0} MiB");
    }
    format!("{:.1} GiB", megabytes / 1024.0)
}

/// A time span for people, as kubectl shows ages.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..10800 => format!("{minutes}m"),
        10800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["é-long".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "N"], &rows),
            "NAME     N\na        1\né-long   22\n"
        );
    }

    #[test]
    fn sizes_and_ages_are_short() {
        let sizes = [1 << 19, 84 << 20, 3 << 30].map(size);
        assert_eq!(sizes, ["0.5 MiB", "84 MiB", "3.0 GiB"]);
        let ages = [0, 119, 150, 600, 10800, 200_000].map(age);
        assert_eq!(ages, ["0s", "119s", "2m30s", "10m", "3h", "2d"]);
    }
}
