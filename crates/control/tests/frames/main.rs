//! Requests that no client would send, to every method of the client's API: nothing panics, and every
//! answer is one.
//!
//! Messages are made of the fields that the definition has, with values that are mistaken most often,
//! and with ids that earlier answers gave: so they get past the first look. What a user's program, a
//! container and a stranger may say is all tried. `HOMEPORT_FUZZ_SECONDS` and `HOMEPORT_FUZZ_SEED`
//! are those of the other targets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod message;
mod server;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use prost_reflect::DescriptorPool;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use message::Messages;
use server::Server;

const SECONDS: f64 = 6.0;
/// Long polls are left alone after this time.
const PATIENCE: Duration = Duration::from_millis(30);

fn number(variable: &str) -> Option<f64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn definition() -> DescriptorPool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto");
    let files = protox::compile(["modal/client/service.proto"], [root]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

#[tokio::test]
async fn fuzz_requests() {
    let seed = number("HOMEPORT_FUZZ_SEED").map_or_else(rand::random, |seed| seed as u64);
    let end = Instant::now() + Duration::from_secs_f64(number("HOMEPORT_FUZZ_SECONDS").unwrap_or(SECONDS));
    let pool = definition();
    let methods: Vec<_> = pool.get_service_by_name("modal.client.ModalClient").unwrap().methods().collect();
    let mut server = Server::start().await;
    let mut messages = Messages::new(StdRng::seed_from_u64(seed));
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    let mut understood = BTreeSet::new();
    while Instant::now() < end {
        let method = &methods[random.random_range(0..methods.len())];
        let request = messages.request(&method.input());
        let caller = random.random_range(0..server::CALLERS);
        let asking = server.ask(method.name(), caller, &request, PATIENCE);
        let Ok(answer) = AssertUnwindSafe(asking).catch_unwind().await else {
            panic!("{} panicked for caller {caller} with seed {seed}: {request:02x?}", method.name());
        };
        if let Some(message) = answer {
            understood.insert(method.name().to_owned());
            messages.learn(&method.output(), &message);
        }
    }
    assert!(server.panics() == 0, "something beside the requests panicked with seed {seed}");
    println!("{} of {} methods answered with a message: {understood:?}", understood.len(), methods.len());
    assert!(
        understood.len() > 20,
        "the messages are of no use: with seed {seed} only {understood:?} were understood"
    );
    assert!(messages.ids() > 20, "only {} ids were learnt with seed {seed}", messages.ids());
    server.still_serves().await;
}
