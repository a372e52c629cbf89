//! What calls cost.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::machine::{ByteCount, Machine};
use crate::statistics::Summary;
use crate::table;

/// Everything that was measured. All times are in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct CallsReport {
    /// Where.
    pub machine: Machine,
    /// Version of the client.
    pub client: String,
    /// A call of a function that does nothing, in a container that waits for it.
    pub remote: Latency,
    /// CPU time of the server for one such call, turn by turn.
    pub remote_cpu: Summary,
    /// Maps of a function that does nothing.
    pub rates: Vec<Rate>,
    /// Calls with large arguments.
    pub payloads: Vec<Payload>,
    /// Calls beside queues of several depths.
    pub queues: Vec<Queue>,
}

/// How long calls take, beside the bare server.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// All calls.
    pub ours: Summary,
    /// The same, answered by the bare server.
    pub floor: Summary,
    /// The median of a turn less that of the floor in the same turn.
    pub over_floor: Summary,
    /// The slowest hundredth of a turn less that of the floor in the same turn.
    pub p99_over_floor: Summary,
}

/// How many inputs a map gets through.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// Containers that take inputs, one at a time each.
    pub containers: usize,
    /// Inputs of one map.
    pub inputs: usize,
    /// Inputs a second.
    pub per_second: Summary,
    /// The same, answered by the bare server: the client's own ceiling.
    pub floor_per_second: Summary,
    /// The first over the second, turn by turn.
    pub of_floor: Summary,
    /// CPU time of the server for one input.
    pub server_cpu: Summary,
}

/// What a call with a large argument takes.
#[derive(Debug, Clone, Serialize)]
pub struct Payload {
    /// Bytes of the argument.
    pub bytes: u64,
    /// The call, to its answer: hashed, uploaded, downloaded by the container.
    pub seconds: Summary,
    /// The same with the bare server, which downloads nothing.
    pub floor: Summary,
    /// A plain upload of as many bytes to the same server.
    pub upload: Summary,
    /// The throughput of the call, over that of the plain upload, turn by turn.
    pub of_upload: Summary,
    /// The same for the bare server: what the client itself leaves of it.
    pub floor_of_upload: Summary,
}

/// What calls cost while inputs of another function wait.
#[derive(Debug, Clone, Serialize)]
pub struct Queue {
    /// Inputs that wait.
    pub depth: usize,
    /// Calls of a function that does nothing.
    pub remote: Summary,
    /// Putting one more input, on the way to this depth.
    pub put: Summary,
    /// CPU time of the server for one call.
    pub server_cpu: f64,
    /// How much the server has grown since the queue was empty.
    pub bytes: u64,
}

impl Latency {
    /// Reduces turns of calls; `None` if there are none.
    pub(super) fn of(ours: &[Vec<f64>], floor: &[Vec<f64>]) -> Option<Latency> {
        let over = |part: fn(&Summary) -> f64| {
            let turns = ours.iter().zip(floor);
            let over: Option<Vec<f64>> = turns
                .map(|(ours, floor)| Some(part(&Summary::of(ours)?) - part(&Summary::of(floor)?)))
                .collect();
            Summary::of(&over?)
        };
        Some(Latency {
            ours: Summary::of(&ours.concat())?,
            floor: Summary::of(&floor.concat())?,
            over_floor: over(|turn| turn.median)?,
            p99_over_floor: over(|turn| turn.p99)?,
        })
    }
}

impl CallsReport {
    /// Bytes of the server's memory for each 10,000 inputs of the deepest queue.
    pub fn bytes_per_ten_thousand(&self) -> Option<u64> {
        let deepest = self.queues.last()?;
        (deepest.bytes * 10_000).checked_div(deepest.depth as u64)
    }
}

fn millis(seconds: f64) -> String {
    format!("{:.2}", seconds * 1e3)
}

fn micros(seconds: f64) -> String {
    format!("{:.0}", seconds * 1e6)
}

fn spread(ratio: &Summary) -> String {
    format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max)
}

fn heading<const N: usize>(cells: [&str; N]) -> Vec<Vec<String>> {
    vec![cells.map(str::to_owned).to_vec()]
}

impl Display for CallsReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "machine  {}", self.machine)?;
        writeln!(formatter, "calls    warm, client {}, beside a bare server (floor)\n", self.client)?;

        let mut rows = heading(["remote()", "p50 ms", "p99 ms", "calls"]);
        for (name, summary) in [("ours", &self.remote.ours), ("floor", &self.remote.floor)] {
            let cells = [millis(summary.median), millis(summary.p99), summary.count.to_string()];
            rows.push([name.to_owned()].into_iter().chain(cells).collect());
        }
        let over = [millis(self.remote.over_floor.median), millis(self.remote.p99_over_floor.median)];
        rows.push(["over the floor".to_owned()].into_iter().chain(over).collect());
        writeln!(formatter, "{}", table::render(&rows, &[0]))?;
        writeln!(formatter, "CPU time of the server: {} µs a call\n", micros(self.remote_cpu.median))?;

        let mut rows = heading(["map()", "inputs/s", "floor", "of floor", "server µs"]);
        for rate in &self.rates {
            rows.push(vec![
                format!("{} containers", rate.containers),
                format!("{:.0}", rate.per_second.median),
                format!("{:.0}", rate.floor_per_second.median),
                spread(&rate.of_floor),
                micros(rate.server_cpu.median),
            ]);
        }
        writeln!(formatter, "{}", table::render(&rows, &[0]))?;

        let mut rows =
            heading(["payload", "call ms", "floor ms", "upload ms", "of upload", "floor of upload"]);
        for payload in &self.payloads {
            rows.push(vec![
                ByteCount(payload.bytes).to_string(),
                millis(payload.seconds.median),
                millis(payload.floor.median),
                millis(payload.upload.median),
                spread(&payload.of_upload),
                spread(&payload.floor_of_upload),
            ]);
        }
        writeln!(formatter, "{}", table::render(&rows, &[0]))?;

        let mut rows =
            heading(["queued", "remote() p50 ms", "server µs a call", "put µs an input", "server grew"]);
        for queue in &self.queues {
            rows.push(vec![
                queue.depth.to_string(),
                millis(queue.remote.median),
                micros(queue.server_cpu),
                micros(queue.put.median),
                ByteCount(queue.bytes).to_string(),
            ]);
        }
        writeln!(formatter, "{}", table::render(&rows, &[]))?;
        if let Some(bytes) = self.bytes_per_ten_thousand() {
            writeln!(formatter, "memory of the server for 10,000 queued inputs: {}", ByteCount(bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_that_of_the_turns() {
        // The second turn found a busy machine: both sides of it are slow.
        let ours = [vec![2.0, 2.0, 2.0], vec![11.0, 11.0, 11.0]];
        let floor = [vec![1.0, 1.0, 1.0], vec![10.0, 10.0, 10.0]];
        let latency = Latency::of(&ours, &floor).unwrap();
        assert_eq!((latency.over_floor.min, latency.over_floor.max), (1.0, 1.0));
        assert_eq!(latency.ours.count, 6);
        assert!(Latency::of(&[], &[]).is_none());
    }
}
