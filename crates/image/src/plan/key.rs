//! Cache keys: two steps with one key make the same image.
//!
//! A key is the BLAKE3 hash of a list of fields, each with its length before it, so that no two
//! different lists run together to one text. The version goes first: whoever changes what a step
//! means raises it, and nothing built before is found any more.

use std::collections::BTreeMap;
use std::fmt;

use homeport_content::{Digest, SnapshotId};

use super::{Action, BaseSource, Copy, Step};
use crate::config::ImageConfig;

const VERSION: u64 = 1;

/// Key under which the result of a step is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Digest);

/// What goes into a step besides the step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInputs {
    /// What a copy copies from. Counts for `COPY` only.
    pub context: Option<SnapshotId>,
    /// Environment that is given to commands and not kept. Counts for `RUN` only.
    pub env: BTreeMap<String, String>,
    /// Other settings that change what a command does, such as the names of secrets in its environment.
    /// Counts for `RUN` only.
    pub settings: BTreeMap<String, String>,
}

impl CacheKey {
    /// The key of an image at hand, from which the keys of the steps on it follow.
    pub fn of_image(snapshot: &SnapshotId, config: &ImageConfig) -> Self {
        let mut fields = Fields::new("image");
        fields.text(&snapshot.to_string());
        fields.config(config);
        fields.finish()
    }

    /// The key of `step` on what `self` stands for.
    pub fn then(&self, step: &Step, inputs: &StepInputs) -> Self {
        let mut fields = Fields::new("step");
        fields.text(&self.0.to_string());
        fields.config(&step.config);
        match &step.action {
            Action::Base(source) => {
                fields.text("base");
                match source {
                    BaseSource::Parent { tag } => fields.list(["parent", tag]),
                    BaseSource::Reference(reference) => fields.list(["reference", reference]),
                    // What the stage holds is in the key that this one follows.
                    BaseSource::Stage(_) => fields.list(["stage"]),
                    BaseSource::Scratch => fields.list(["scratch"]),
                }
            }
            Action::Run { argv, build_env, scratch } => {
                fields.text("run");
                fields.list(argv);
                fields.map(build_env);
                fields.map(&inputs.env);
                fields.map(&inputs.settings);
                // What is seldom said is written only where it is said, so that older keys stay.
                if !scratch.is_empty() {
                    fields.text("scratch");
                    fields.list(scratch);
                }
            }
            Action::Copy(copy) => fields.copy(copy, inputs),
            Action::MakeDirectory { path } => fields.list(["directory", path]),
            Action::Configure => fields.text("configure"),
        }
        fields.finish()
    }

    /// The key as a digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

struct Fields(Vec<u8>);

impl Fields {
    fn new(domain: &str) -> Self {
        let mut fields = Self(Vec::new());
        fields.text("homeport build step");
        fields.count(VERSION);
        fields.text(domain);
        fields
    }

    fn count(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    fn list<S: AsRef<str>, I: IntoIterator<Item = S>>(&mut self, texts: I) {
        let texts: Vec<S> = texts.into_iter().collect();
        self.count(texts.len() as u64);
        for text in &texts {
            self.text(text.as_ref());
        }
    }

    fn map<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a String, &'a String)>) {
        self.list(pairs.into_iter().flat_map(|(name, value)| [name, value]));
    }

    fn copy(&mut self, copy: &Copy, inputs: &StepInputs) {
        // Where the sources come from shows in the snapshot that they are copied from.
        let Copy { from: _, sources, destination, owner, mode, inline, unpack } = copy;
        self.text("copy");
        self.list(sources);
        self.text(destination);
        self.list(inputs.context.map(|context| context.to_string()));
        if let Some(owner) = owner {
            self.list(["owner", owner]);
        }
        if let Some(mode) = mode {
            self.list(["mode", &format!("{mode:o}")]);
        }
        if !inline.is_empty() {
            self.text("inline");
            self.list(inline.iter().flat_map(|(name, text)| [name, text]));
        }
        if *unpack {
            self.text("unpack");
        }
    }

    fn config(&mut self, config: &ImageConfig) {
        // Destructured, so that a field added later can't be forgotten here.
        let ImageConfig { env, workdir, entrypoint, cmd, shell, user, labels, python } = config;
        self.map(env.iter().map(|(name, value)| (name, value)));
        self.text(workdir);
        self.list(entrypoint);
        self.list(cmd);
        self.list(shell);
        self.text(user);
        self.map(labels);
        self.list(python);
    }

    fn finish(self) -> CacheKey {
        CacheKey(Digest::of(&self.0))
    }
}
