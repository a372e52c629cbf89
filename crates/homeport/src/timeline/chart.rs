//! Starts as bars. All bars have one scale, so that their lengths compare.

use std::fmt::{self, Display, Formatter};

use chrono::DateTime;
use homeport_proto::admin as pb;

/// Letter, colour and meaning of each stage, in the order in which they happen.
const STAGES: [(&str, char, u8, &str); 8] = [
    ("queued", 'q', 245, "an input waited for the decision to start a container"),
    ("placed", 'p', 141, "the decision became an order: layers, Volumes, arguments"),
    ("network", 'n', 74, "namespaces, address and links"),
    ("mounted", 'm', 37, "layers, overlay, files and Volumes"),
    ("process", 'r', 71, "the runtime made the container and started the process"),
    ("client", 'c', 178, "the interpreter came up and imported the client"),
    ("code", 'u', 166, "the user's code was imported, and its @enter methods ran"),
    ("first_input", 'i', 132, "the first input was run"),
];
/// The least and the most cells of a bar.
const BAR: (usize, usize) = (20, 100);
/// Characters of an id and of a name that are shown.
const ID: usize = 12;
const NAME: usize = 24;

/// How stages are told apart in a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// By letters.
    Letters,
    /// By letters on colours, for a terminal.
    Colours,
}

/// The starts of an app, to be shown in so many columns.
pub(super) struct Chart<'a> {
    pub(super) timeline: &'a pb::AppTimelineResponse,
    pub(super) columns: usize,
    pub(super) paint: Paint,
}

impl Display for Chart<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let pb::AppTimelineResponse { app_id, name, state, starts } = self.timeline;
        writeln!(formatter, "{name} ({app_id}), {state}")?;
        if starts.is_empty() {
            return writeln!(formatter, "no container of it is remembered");
        }
        writeln!(formatter)?;
        let names: Vec<String> = starts.iter().map(|start| short(&start.function, NAME)).collect();
        let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("FUNCTION".len());
        let front = ID + 2 + wide + 2 + 8 + 2 + 8 + 2 + 9 + 2;
        let cells = self.columns.saturating_sub(front).clamp(BAR.0, BAR.1);
        let longest = starts.iter().map(total).fold(f64::MIN_POSITIVE, f64::max);
        writeln!(
            formatter,
            "{:<ID$}  {:<wide$}  {:<8}  {:<8}  {:>9}  0 to {}",
            "CONTAINER",
            "FUNCTION",
            "STATE",
            "BEGAN",
            "TOTAL",
            time(longest),
        )?;
        for (start, name) in starts.iter().zip(&names) {
            writeln!(
                formatter,
                "{:<ID$}  {name:<wide$}  {:<8}  {}  {:>9}  {}",
                short(&start.task_id, ID),
                start.state,
                clock(start.began),
                time(total(start)),
                self.bar(start, longest, cells),
            )?;
        }
        writeln!(formatter)?;
        self.legend(formatter)
    }
}

impl Chart<'_> {
    /// Stages end at the cell nearest to their moment, so the bar as a whole is as long as the start.
    fn bar(&self, start: &pb::ContainerStart, longest: f64, cells: usize) -> String {
        let (mut bar, mut seconds, mut filled) = (String::new(), 0.0, 0);
        for stage in &start.stages {
            seconds += stage.seconds;
            let until = ((seconds / longest * cells as f64).round() as usize).min(cells);
            let known = STAGES.iter().find(|(name, ..)| *name == stage.name);
            let (letter, colour) = known.map_or(('?', 7), |(_, letter, colour, _)| (*letter, *colour));
            let piece: String = std::iter::repeat_n(letter, until.saturating_sub(filled)).collect();
            bar += &self.painted(&piece, colour);
            filled = filled.max(until);
        }
        bar
    }

    fn painted(&self, piece: &str, colour: u8) -> String {
        match self.paint {
            Paint::Colours if !piece.is_empty() => format!("\x1b[30;48;5;{colour}m{piece}\x1b[0m"),
            _ => piece.to_owned(),
        }
    }

    fn legend(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "   {:<11}  {:>9}  {:>9}  COVERS", "STAGE", "MEDIAN", "LONGEST")?;
        for (name, letter, colour, covers) in STAGES {
            let all = self.timeline.starts.iter().flat_map(|start| &start.stages);
            let mut seconds: Vec<f64> =
                all.filter(|stage| stage.name == name).map(|stage| stage.seconds).collect();
            seconds.sort_by(f64::total_cmp);
            let (Some(median), Some(longest)) = (seconds.get(seconds.len() / 2), seconds.last()) else {
                continue;
            };
            let letter = self.painted(&letter.to_string(), colour);
            writeln!(
                formatter,
                "{letter}  {name:<11}  {:>9}  {:>9}  {covers}",
                time(*median),
                time(*longest)
            )?;
        }
        Ok(())
    }
}

fn total(start: &pb::ContainerStart) -> f64 {
    start.stages.iter().map(|stage| stage.seconds).sum()
}

/// Three digits that matter, in the unit that needs no more.
fn time(seconds: f64) -> String {
    match seconds {
        0.0..0.001 => format!("{:.0} µs", seconds * 1e6),
        0.001..0.1 => format!("{:.1} ms", seconds * 1e3),
        0.1..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..100.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

fn clock(seconds: f64) -> String {
    let time = DateTime::from_timestamp(seconds as i64, 0);
    time.map_or_else(|| "--:--:--".to_owned(), |time| time.format("%H:%M:%S").to_string())
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(task: &str, stages: &[(&str, f64)]) -> pb::ContainerStart {
        let stage =
            |(name, seconds): &(&str, f64)| pb::StartStage { name: (*name).into(), seconds: *seconds };
        pb::ContainerStart {
            task_id: task.to_owned(),
            function: "embed".to_owned(),
            began: 3661.0,
            stages: stages.iter().map(stage).collect(),
            state: "serving".to_owned(),
            outcome: String::new(),
        }
    }

    fn timeline(starts: Vec<pb::ContainerStart>) -> pb::AppTimelineResponse {
        pb::AppTimelineResponse {
            app_id: "ap-1".to_owned(),
            name: "models".to_owned(),
            state: "deployed".to_owned(),
            starts,
        }
    }

    #[test]
    fn bars_share_one_scale_and_the_longest_fills_it() {
        let starts = vec![
            start("ta-1", &[("queued", 1.0), ("client", 2.0), ("code", 1.0)]),
            start("ta-2", &[("client", 1.0), ("code", 1.0)]),
        ];
        let timeline = timeline(starts);
        let text = Chart { timeline: &timeline, columns: 10, paint: Paint::Letters }.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "models (ap-1), deployed");
        let bar = |line: &str| line.rsplit("  ").next().unwrap().to_owned();
        assert_eq!(bar(lines[3]), "qqqqqccccccccccuuuuu");
        assert_eq!(bar(lines[4]), "cccccuuuuu");
        assert!(lines[3].contains("01:01:01") && lines[3].contains("4.00 s"), "{}", lines[3]);
        let client = lines.iter().find(|line| line.starts_with("c  client")).unwrap();
        assert!(client.contains("2.00 s") && client.contains("imported the client"), "{client}");
        assert!(!text.contains("network"), "what was in no start is not explained: {text}");
    }

    #[test]
    fn lines_fit_into_the_columns_that_there_are() {
        let name = "a_function_with_a_name_that_goes_on_and_on";
        let long =
            pb::ContainerStart { function: name.into(), ..start("ta-0123456789abcdef", &[("code", 1.0)]) };
        let timeline = timeline(vec![long]);
        let text = Chart { timeline: &timeline, columns: 120, paint: Paint::Letters }.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn an_app_without_containers_says_so() {
        let timeline = timeline(Vec::new());
        let text = Chart { timeline: &timeline, columns: 80, paint: Paint::Letters }.to_string();
        assert!(text.ends_with("no container of it is remembered\n"), "{text}");
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let shown = [0.000_25, 0.012_34, 0.2987, 2.5, 300.0].map(time);
        assert_eq!(shown, ["250 µs", "12.3 ms", "299 ms", "2.50 s", "300 s"]);
    }
}
