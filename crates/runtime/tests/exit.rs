//! Every way in which a container ends reaches the caller.

#[path = "fixture/instance.rs"]
mod instance;

use homeport_runtime::ExitStatus;
use instance::Instance;

#[test]
fn output_and_exit_code_of_a_command_are_its_own() {
    let outcome = Instance::new().run("echo out; echo err >&2; exit 3");
    assert_eq!(outcome.exit.status, ExitStatus::Code(3), "{outcome:?}");
    assert!(!outcome.exit.out_of_memory);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}
