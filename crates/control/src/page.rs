//! A page for each app: what serves, how starts went, what was said.
//!
//! The address that clients print holds a key made for that app by this run of the server. Who has
//! the address may look; there is nothing to change on the page.

use std::fmt::Write as _;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use homeport_proto::record as rec;
use subtle::ConstantTimeEq as _;

use crate::control::Control;
use crate::functions;
use crate::ids;
use crate::logs::Source;
use crate::scheduler::{StartRecord, TaskPhase};

/// Lines of the log that the page shows.
const LINES: usize = 400;

#[derive(Debug, serde::Deserialize)]
pub struct Key {
    #[serde(default)]
    key: String,
}

impl Control {
    /// The address of an app's page.
    pub(crate) fn app_url(&self, app_id: &str) -> String {
        format!("{}/apps/{app_id}?key={}", self.options.base_url, self.page_key(app_id))
    }

    fn page_key(&self, app_id: &str) -> String {
        let key = ids::derived("k", &[self.options.worker_credential.as_bytes(), app_id.as_bytes()]);
        key.trim_start_matches("k-").to_owned()
    }
}

/// The page of an app.
pub async fn app(
    State(control): State<Control>,
    Path(app_id): Path<String>,
    Query(key): Query<Key>,
) -> Response {
    let known = control.registry.app(&app_id);
    let may_look = bool::from(key.key.as_bytes().ct_eq(control.page_key(&app_id).as_bytes()));
    match known {
        Some(app) if may_look => Html(render(&control, &app)).into_response(),
        _ => {
            let text = "This address is not valid, or was made by an earlier run of the server.\n\
                        See `modal app list` and `modal app logs` for what is there.\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

fn render(control: &Control, app: &rec::App) -> String {
    let name = if app.name.is_empty() { &app.description } else { &app.name };
    let state = app.state().as_str_name().trim_start_matches("APP_STATE_").to_lowercase().replace('_', " ");
    let ended = app.stopped_at > 0.0;
    let age = duration(if ended { app.stopped_at } else { control.clock.now() } - app.created_at);
    let refresh = if ended { "" } else { "<meta http-equiv=\"refresh\" content=\"3\">" };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">{refresh}<title>{name} · Homeport</title>\
         <style>{style}</style><header><h1>{name}</h1><span class=\"state\">{state}</span>\
         <span class=\"dim\">{id} · {age}</span></header>{functions}{starts}<h2>Log</h2><pre>{log}</pre></html>",
        name = escape(name),
        style = include_str!("page/style.css"),
        id = escape(&app.id),
        functions = functions_table(control, app),
        starts = starts_table(control, app),
        log = log(control, &app.id),
    )
}

fn functions_table(control: &Control, app: &rec::App) -> String {
    let mut rows = String::new();
    for function in control.registry.functions_of(&app.id) {
        let Some(definition) = functions::definition(&control.registry, &function) else { continue };
        if !definition.use_function_id.is_empty() {
            continue;
        }
        let (queued, containers, running) = control.with_scheduler(|scheduler, _| {
            let tasks: Vec<_> = scheduler.live_tasks().filter(|task| task.pool_id == function.id).collect();
            let queued = scheduler.pool(&function.id).map_or(0, crate::scheduler::Pool::queued);
            (queued, tasks.len(), tasks.iter().map(|task| task.running()).sum::<usize>())
        });
        let _ = write!(
            rows,
            "<tr><td>{}{}<td class=\"number\">{containers}<td class=\"number\">{running}<td class=\"number\">{queued}",
            escape(definition.function_name.trim_end_matches(".*")),
            if function.binding.is_some() { " <span class=\"dim\">with parameters</span>" } else { "" },
        );
    }
    format!(
        "<h2>Functions</h2><table><tr><th>Function<th class=\"number\">Containers<th class=\"number\">Running\
         <th class=\"number\">Queued</tr>{rows}</table>"
    )
}

fn starts_table(control: &Control, app: &rec::App) -> String {
    let mut tasks: Vec<(String, StartRecord, TaskPhase)> = control.with_scheduler(|scheduler, _| {
        let own = scheduler.tasks().filter(|task| task.app_id == app.id);
        own.map(|task| (task.id.clone(), task.start.clone(), task.phase)).collect()
    });
    if tasks.is_empty() {
        return String::new();
    }
    tasks.sort_by(|(_, a, _), (_, b, _)| b.decided.total_cmp(&a.decided));
    let mut rows = String::new();
    for (id, start, phase) in tasks.iter().take(30) {
        let stages = stages(start);
        let total: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
        let mut bar = String::new();
        for (class, seconds) in stages {
            let share = if total > 0.0 { seconds / total * 100.0 } else { 0.0 };
            let _ = write!(
                bar,
                "<i class=\"{class}\" style=\"width:{share:.1}%\" title=\"{class} {seconds:.3} s\"></i>"
            );
        }
        let phase = format!("{phase:?}").to_lowercase();
        let _ = write!(
            rows,
            "<tr><td>{}<td>{phase}<td class=\"number\">{:.0} ms<td style=\"width:50%\"><div class=\"bar\">{bar}</div>",
            escape(id),
            total * 1000.0
        );
    }
    let legend: String = ["mount", "network", "runtime", "client", "code"]
        .map(|class| format!("<span><i class=\"{class}\"></i>{class}</span>"))
        .concat();
    format!(
        "<h2>Containers</h2><p class=\"legend dim\">{legend}</p><table><tr><th>Container<th>State\
         <th class=\"number\">Start<th></tr>{rows}</table>"
    )
}

/// The stages of a start that are over, in seconds. Mount and network go on at the same time.
fn stages(start: &StartRecord) -> Vec<(&'static str, f64)> {
    let worker = |name: &'static str| {
        start
            .worker_micros
            .get(name)
            .map(|micros| (name, std::time::Duration::from_micros(*micros).as_secs_f64()))
    };
    let between = |class, from: Option<f64>, to: Option<f64>| {
        from.zip(to).map(|(from, to)| (class, (to - from).max(0.0)))
    };
    [
        worker("mount"),
        worker("network"),
        worker("runtime"),
        between("client", start.process, start.hello),
        between("code", start.hello, start.ready),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn log(control: &Control, app_id: &str) -> String {
    let mut html = String::new();
    for entry in control.logs.between(app_id, 0.0, f64::MAX, LINES) {
        let text = escape(&entry.text);
        let _ = match entry.source {
            Source::Stdout => write!(html, "{text}"),
            Source::Stderr => write!(html, "<span class=\"stderr\">{text}</span>"),
            Source::Server => write!(html, "<span class=\"server\">{text}</span>"),
        };
    }
    html
}

fn duration(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_users_cannot_become_markup() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }

    #[test]
    fn stages_that_are_not_over_are_left_out() {
        let start = StartRecord { process: Some(2.0), hello: Some(2.5), ..Default::default() };
        assert_eq!(stages(&start), vec![("client", 0.5)]);
    }
}
