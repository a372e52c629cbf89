//! Fuzzing of decoders, for tests: input that nobody would write, made from input that somebody wrote.
//!
//! A test hands [`fuzz`] a decoder and a few inputs that it understands. They and the kept corpus of the
//! target (`corpus/NAME/` of the crate) are run as they are; then mutations of them are, for as long as
//! `HOMEPORT_FUZZ_SECONDS` says. An input whose outcome was not seen before is mutated further, so the
//! search goes deeper than one step. It needs nothing but a stable compiler.
//!
//! A panic, or an input that takes too long, fails the test. The input is made small and written into
//! the corpus, where it stays: once mended, it is a test for ever.
//!
//! Absent: coverage from the compiler. What a decoder answers takes its place, so answers should say what
//! is wrong and where the decoder was.

mod corpus;
mod mutate;
mod shrink;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use corpus::Corpus;
use mutate::mutated;

/// Seconds for each target where nobody says anything else.
const SECONDS: f64 = 2.0;
/// What a decoder may take for one input. They are small, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the longest input.
const LONGEST: usize = 64 << 10;
/// Inputs that are mutated further.
const POOL: usize = 4096;

/// A decoder under test.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    corpus: PathBuf,
}

/// What an input did.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Answer(String),
    Panic(String),
    Slow(Duration),
}

impl Target {
    /// A target with its corpus in `corpus/NAME` of the crate whose directory is given, which is
    /// `env!("CARGO_MANIFEST_DIR")`.
    pub fn new(manifest_dir: &str, name: &'static str) -> Target {
        Target { name, corpus: Path::new(manifest_dir).join("corpus").join(name) }
    }

    /// Runs the decoder on `seeds`, on the corpus, and on mutations of both. What the decoder answers
    /// tells inputs apart; numbers and what is quoted in it don't count.
    ///
    /// # Panics
    ///
    /// When the decoder does, and when it takes too long.
    #[allow(clippy::panic)]
    pub fn fuzz(&self, seeds: impl IntoIterator<Item = Vec<u8>>, decode: impl Fn(&[u8]) -> String) {
        let seed = number("HOMEPORT_FUZZ_SEED").map_or_else(rand::random, |seed| seed as u64);
        let seconds = number("HOMEPORT_FUZZ_SECONDS").unwrap_or(SECONDS);
        let corpus = Corpus::open(&self.corpus);
        let mut pool: Vec<Vec<u8>> = seeds.into_iter().chain(corpus.inputs()).collect();
        pool.push(Vec::new());
        let mut seen = HashSet::new();
        for input in &pool {
            seen.insert(signature(&self.checked(&decode, input, seed, &corpus)));
        }
        let mut random = StdRng::seed_from_u64(seed);
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            // The newest are taken more often: they are where nobody has been.
            let number = random.random_range(0..pool.len()).max(random.random_range(0..pool.len()));
            let mut input = mutated(&pool, number, &mut random);
            input.truncate(LONGEST);
            let answer = self.checked(&decode, &input, seed, &corpus);
            if seen.insert(signature(&answer)) && pool.len() < POOL {
                corpus.keep(&input);
                pool.push(input);
            }
        }
    }

    #[allow(clippy::panic)]
    fn checked(&self, decode: &impl Fn(&[u8]) -> String, input: &[u8], seed: u64, corpus: &Corpus) -> String {
        let outcome = run(decode, input);
        let what = match &outcome {
            Outcome::Answer(answer) => return answer.clone(),
            Outcome::Panic(text) => format!("panicked: {text}"),
            Outcome::Slow(time) => format!("took {time:?}"),
        };
        let small = match outcome {
            Outcome::Panic(_) => {
                shrink::shrunk(input, |smaller| matches!(run(decode, smaller), Outcome::Panic(_)))
            }
            _ => input.to_vec(),
        };
        let kept = corpus.add("crash", &small);
        panic!(
            "{}: the decoder {what}\nwith seed {seed}; the input of {} bytes is {kept}",
            self.name,
            small.len()
        );
    }
}

fn run(decode: &impl Fn(&[u8]) -> String, input: &[u8]) -> Outcome {
    let began = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| decode(input))) {
        Ok(_) if began.elapsed() > PATIENCE => Outcome::Slow(began.elapsed()),
        Ok(answer) => Outcome::Answer(answer),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Outcome::Panic(
                text.or_else(|| panic.downcast_ref().copied()).unwrap_or("without words").to_owned(),
            )
        }
    }
}

/// An answer without its numbers and without what is quoted.
fn signature(answer: &str) -> String {
    let mut outside = true;
    let kept = answer.chars().filter(|letter| {
        if matches!(letter, '`' | '"') {
            outside = !outside;
        }
        outside && !letter.is_ascii_digit()
    });
    kept.take(200).collect()
}

fn number(variable: &str) -> Option<f64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Understands `ab`, a length and as many bytes; trusts the length of long ones.
    fn careless(bytes: &[u8]) -> String {
        let Some(rest) = bytes.strip_prefix(b"ab") else { return "no magic".into() };
        let Some((length, rest)) = rest.split_first() else { return "no length".into() };
        if *length > 200 {
            return rest[..usize::from(*length)].len().to_string();
        }
        rest.get(..usize::from(*length)).map_or_else(|| "short".into(), |_| "whole".into())
    }

    #[test]
    fn a_careless_decoder_is_caught_and_its_input_kept_small() {
        let dir = tempdir();
        let target = Target { name: "careless", corpus: dir.clone() };
        let caught = catch_unwind(|| target.fuzz([b"ab\x03xyz".to_vec()], careless)).unwrap_err();
        let text = caught.downcast_ref::<String>().unwrap();
        assert!(text.contains("panicked") && text.contains("crash-"), "{text}");
        let kept: Vec<_> = Corpus::open(&dir).inputs().collect();
        assert_eq!(kept.len(), 1);
        assert!(kept[0].len() == 3 && kept[0][2] > 200, "{kept:?}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn answers_differ_by_words_only() {
        assert_eq!(signature("byte 12 of `x1`"), signature("byte 7 of `other`"));
        assert_ne!(signature("too long"), signature("too short"));
    }

    fn tempdir() -> PathBuf {
        std::env::temp_dir().join(format!("homeport-fuzz-{}", rand::random::<u64>()))
    }
}
