//! Whether what clients ask for makes sense. Clients check most of it themselves; what comes past
//! them would otherwise be found out by a container that never starts, or by a full machine.

use homeport_proto::client as pb;
use tonic::Status;

const DAY: u32 = 24 * 60 * 60;
/// The longest name of a function, in characters.
const LONGEST_NAME: usize = 256;
/// Seconds that an input or a start may take at most.
const LONGEST_TIMEOUT: u32 = 30 * DAY;
/// Seconds that an idle container may be kept at most.
const LONGEST_IDLE: u32 = DAY;
/// Further attempts for an input that fails.
const MOST_RETRIES: u32 = 1000;
/// Milliseconds between two attempts.
const LONGEST_RETRY_DELAY: u32 = DAY * 1000;
/// By how much each delay may be longer than the one before.
const LARGEST_BACKOFF: f32 = 10.0;
/// Inputs that one container takes at the same time.
const MOST_CONCURRENT: u32 = 1000;
/// Inputs in one batch.
const LARGEST_BATCH: u32 = 1000;
/// Milliseconds for which a batch waits to be full.
const LONGEST_LINGER: u64 = 10 * 60 * 1000;
/// Containers of one function.
const MOST_CONTAINERS: u32 = 100_000;
/// Bytes of a function that comes as data, with all that it refers to.
const LARGEST_SERIALIZED: usize = 64 << 20;

/// A definition that no container could run well is refused, with a sentence that says why.
pub fn function(definition: &pb::Function) -> Result<(), Status> {
    let name = &definition.function_name;
    if name.is_empty() {
        return Err(Status::invalid_argument("a function needs a name"));
    }
    if name.chars().count() > LONGEST_NAME {
        return Err(Status::invalid_argument(format!(
            "the name of function `{}…` has {} characters; {LONGEST_NAME} are possible",
            name.chars().take(40).collect::<String>(),
            name.chars().count()
        )));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control() || *c == '/') {
        return Err(Status::invalid_argument(format!(
            "the name of function {name:?} has the character {bad:?}, which names can't have"
        )));
    }
    let check = Check { name };
    check.most("timeout (in seconds)", definition.timeout_secs, LONGEST_TIMEOUT)?;
    check.most("startup_timeout (in seconds)", definition.startup_timeout_secs, LONGEST_TIMEOUT)?;
    check.most("number of concurrent inputs", definition.max_concurrent_inputs, MOST_CONCURRENT)?;
    check.most("number of concurrent inputs", definition.target_concurrent_inputs, MOST_CONCURRENT)?;
    check.most("size of a batch", definition.batch_max_size, LARGEST_BATCH)?;
    check.most("time that a batch waits (in milliseconds)", definition.batch_linger_ms, LONGEST_LINGER)?;
    if let Some(policy) = &definition.retry_policy {
        check.retries(policy)?;
    }
    check.most(
        "time that an idle container stays (in seconds)",
        definition.task_idle_timeout_secs,
        LONGEST_IDLE,
    )?;
    check.containers(definition.warm_pool_size, definition.concurrency_limit)?;
    if let Some(settings) = &definition.autoscaler_settings {
        check.containers(settings.min_containers(), settings.max_containers())?;
    }
    if let Some(resources) = &definition.resources {
        check.resources(resources)?;
    }
    let serialized = definition.function_serialized.len().max(definition.class_serialized.len());
    if serialized > LARGEST_SERIALIZED {
        return Err(check.refuse(format!(
            "has {} MiB of serialized code and data; {} MiB are possible. Load large data inside the function, \
             or pass it as an argument",
            serialized >> 20,
            LARGEST_SERIALIZED >> 20
        )));
    }
    Ok(())
}

/// Inputs whose place in their call can't be.
pub fn inputs(items: &[pb::FunctionPutInputsItem]) -> Result<(), Status> {
    match items.iter().find(|item| item.idx < 0) {
        Some(item) => Err(Status::invalid_argument(format!(
            "an input has the place {} in its call; places begin at 0",
            item.idx
        ))),
        None => Ok(()),
    }
}

struct Check<'a> {
    name: &'a str,
}

impl Check<'_> {
    fn refuse(&self, what: String) -> Status {
        Status::invalid_argument(format!("function {} {what}", self.name))
    }

    fn most<T: PartialOrd + std::fmt::Display>(&self, what: &str, value: T, most: T) -> Result<(), Status> {
        if value <= most {
            return Ok(());
        }
        Err(self.refuse(format!("asks for a {what} of {value}; at most {most} is possible")))
    }

    fn retries(&self, policy: &pb::FunctionRetryPolicy) -> Result<(), Status> {
        self.most("number of retries", policy.retries, MOST_RETRIES)?;
        self.most("delay between retries (in milliseconds)", policy.initial_delay_ms, LONGEST_RETRY_DELAY)?;
        self.most("delay between retries (in milliseconds)", policy.max_delay_ms, LONGEST_RETRY_DELAY)?;
        // Not a number is not in the range either.
        if !(0.0..=LARGEST_BACKOFF).contains(&policy.backoff_coefficient) {
            return Err(self.refuse(format!(
                "asks for a back-off of {} between retries; 1 to {LARGEST_BACKOFF} is possible",
                policy.backoff_coefficient
            )));
        }
        Ok(())
    }

    fn containers(&self, min: u32, max: u32) -> Result<(), Status> {
        self.most("number of containers", min.max(max), MOST_CONTAINERS)?;
        if max > 0 && min > max {
            return Err(self.refuse(format!("asks for at least {min} containers and for at most {max}")));
        }
        Ok(())
    }

    fn resources(&self, resources: &pb::Resources) -> Result<(), Status> {
        if resources.memory_mb_max > 0 && resources.memory_mb_max < resources.memory_mb {
            return Err(self.refuse(format!(
                "asks for {} MiB of memory and limits itself to {} MiB",
                resources.memory_mb, resources.memory_mb_max
            )));
        }
        if resources.milli_cpu_max > 0 && resources.milli_cpu_max < resources.milli_cpu {
            return Err(self.refuse(format!(
                "asks for {} cores and limits itself to {}",
                f64::from(resources.milli_cpu) / 1000.0,
                f64::from(resources.milli_cpu_max) / 1000.0
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> pb::Function {
        pb::Function { function_name: "f".into(), timeout_secs: 300, ..Default::default() }
    }

    fn refusal(definition: pb::Function) -> String {
        function(&definition).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_clients_send_by_default_is_accepted() {
        function(&good()).unwrap();
        for name in ["Model.*", "outer.<locals>.inner", "größe"] {
            function(&pb::Function { function_name: name.into(), ..good() }).unwrap();
        }
        // A number of retries without further words, as each client sends it.
        let policy = pb::FunctionRetryPolicy {
            retries: 3,
            backoff_coefficient: 1.0,
            initial_delay_ms: 1000,
            max_delay_ms: 60_000,
        };
        function(&pb::Function { retry_policy: Some(policy), ..good() }).unwrap();
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for (name, said) in [("", "needs a name"), ("a\nb", "'\\n'"), ("../f", "'/'")] {
            let text = refusal(pb::Function { function_name: name.into(), ..good() });
            assert!(text.contains(said), "{text}");
        }
        let text = refusal(pb::Function { function_name: "x".repeat(100_000), ..good() });
        assert!(text.contains("100000 characters") && text.len() < 300, "{text}");
    }

    #[test]
    fn absurd_numbers_are_named() {
        let policy = pb::FunctionRetryPolicy { backoff_coefficient: f32::NAN, ..Default::default() };
        let resources = pb::Resources { memory_mb: 1000, memory_mb_max: 10, ..Default::default() };
        let settings =
            pb::AutoscalerSettings { min_containers: Some(5), max_containers: Some(2), ..Default::default() };
        let bad = [
            (pb::Function { timeout_secs: u32::MAX, ..good() }, "timeout"),
            (pb::Function { max_concurrent_inputs: 2_000_000, ..good() }, "concurrent"),
            (pb::Function { batch_linger_ms: u64::MAX, ..good() }, "batch"),
            (pb::Function { retry_policy: Some(policy), ..good() }, "NaN"),
            (pb::Function { resources: Some(resources), ..good() }, "limits itself to 10 MiB"),
            (pb::Function { autoscaler_settings: Some(settings), ..good() }, "at most 2"),
            (pb::Function { warm_pool_size: u32::MAX, ..good() }, "containers"),
            (
                pb::Function { function_serialized: vec![0; LARGEST_SERIALIZED + 1].into(), ..good() },
                "64 MiB",
            ),
        ];
        for (definition, said) in bad {
            let text = refusal(definition);
            assert!(text.contains("function f") && text.contains(said), "{text}");
        }
    }
}
