//! Which stages a build has, what each stands on, and which of them are needed.

use std::collections::BTreeSet;
use std::ops::Range;

use super::arguments::{self, Values};
use super::stage::Walk;
use super::{BaseSource, CopySource, PlanError, Step, refusal};
use crate::config::ImageConfig;
use crate::dockerfile::{DockerfileError, Fault, Instruction, Located, expand};

/// A stage of a build: a `FROM` and what follows it.
#[derive(Clone, Debug)]
pub struct Stage<'a> {
    /// Its number over all stages that were written, from 0.
    pub index: usize,
    /// What it stands on.
    pub base: BaseSource,
    pub(super) instructions: &'a [Located],
    /// What `COPY --from` means in this stage, by what it says.
    pub(super) sources: Vec<(String, CopySource)>,
    pub(super) outside: Values,
    pub(super) given: &'a Values,
    /// Steps of the stages before it that are carried out, and of all.
    pub(super) before: usize,
    pub(super) total: usize,
}

impl Stage<'_> {
    /// The steps of the stage on its base, whose configuration is `base`. The first one is the base.
    pub fn steps(&self, base: &ImageConfig) -> Result<Vec<Step>, PlanError> {
        Ok(Walk::new(self, base).steps()?)
    }

    /// The image whose configuration and files it begins with, and those it copies from.
    fn needs(&self) -> impl Iterator<Item = usize> + '_ {
        let base = match self.base {
            BaseSource::Stage(index) => Some(index),
            _ => None,
        };
        let copied = self.sources.iter().filter_map(|(_, source)| match source {
            CopySource::Stage(index) => Some(*index),
            _ => None,
        });
        base.into_iter().chain(copied)
    }
}

/// The stages that are needed for the last one, which is the image, in the order of their building.
///
/// `parents` are the names under which built images are at hand, `given` are values for `ARG`s.
pub fn stages<'a>(
    instructions: &'a [Located],
    parents: &[&str],
    given: &'a Values,
) -> Result<Vec<Stage<'a>>, PlanError> {
    let mut outside = arguments::of_platform();
    let first = declared_before(instructions, given, &mut outside)?;
    let mut names: Vec<Option<&str>> = Vec::new();
    let mut stages = Vec::new();
    for range in ranges(instructions, first) {
        let located = &instructions[range.start];
        let Instruction::From { image, platform, name } = &located.instruction else { continue };
        let known = Known { names: &names, parents };
        let base = known.base(located, image, platform.as_deref(), &outside)?;
        let instructions = &instructions[range];
        stages.push(Stage {
            index: stages.len(),
            base,
            instructions,
            sources: known.copy_sources(instructions)?,
            outside: outside.clone(),
            given,
            before: 0,
            total: 0,
        });
        names.push(name.as_deref());
    }
    Ok(numbered(only_needed(stages)))
}

/// Takes the `ARG`s before the first `FROM`, and says where that is.
fn declared_before(
    instructions: &[Located],
    given: &Values,
    outside: &mut Values,
) -> Result<usize, PlanError> {
    let nothing = Values::new();
    for (at, located) in instructions.iter().enumerate() {
        match &located.instruction {
            Instruction::Arg(names) => {
                arguments::declare(located, names, outside, given, &nothing, &ImageConfig::default())?;
            }
            Instruction::From { .. } => return Ok(at),
            _ => return Err(refusal(located, "only ARG may stand before FROM").into()),
        }
    }
    Err(PlanError::NoBase)
}

/// From each `FROM` to before the next.
fn ranges(instructions: &[Located], first: usize) -> Vec<Range<usize>> {
    let is_from = |at: &usize| matches!(instructions[*at].instruction, Instruction::From { .. });
    let starts: Vec<usize> = (first..instructions.len()).filter(is_from).collect();
    let ends = starts.iter().skip(1).copied().chain([instructions.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// What names stand for at a place of the Dockerfile.
struct Known<'k> {
    names: &'k [Option<&'k str>],
    parents: &'k [&'k str],
}

impl Known<'_> {
    fn base(
        &self,
        located: &Located,
        image: &str,
        platform: Option<&str>,
        arguments: &Values,
    ) -> Result<BaseSource, DockerfileError> {
        let expanded = |word: &str| {
            expand(word, &|name| arguments.get(name).cloned())
                .map_err(|fault| DockerfileError::at(located.line, &located.text, fault))
        };
        refuse_foreign_platform(located, platform.map(expanded).transpose()?.as_deref())?;
        let image = expanded(image)?;
        match image.as_str() {
            "" => Err(refusal(located, "FROM names no image once its variables have their values")),
            "scratch" => Ok(BaseSource::Scratch),
            name => Ok(match self.stage(name) {
                Some(index) => BaseSource::Stage(index),
                None => self.image(name),
            }),
        }
    }

    fn stage(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        self.names.iter().rposition(|known| known.is_some_and(|known| known == name))
    }

    fn image(&self, name: &str) -> BaseSource {
        if self.parents.contains(&name) {
            BaseSource::Parent { tag: name.to_owned() }
        } else {
            BaseSource::Reference(name.to_owned())
        }
    }

    fn copy_sources(&self, stage: &[Located]) -> Result<Vec<(String, CopySource)>, DockerfileError> {
        let mut sources = Vec::new();
        for located in stage {
            let Instruction::Copy(copy) = &located.instruction else { continue };
            let Some(from) = &copy.from else { continue };
            if from.contains('$') {
                return Err(refusal(located, "--from takes no variables; name a stage or an image"));
            }
            let by_number = from.parse::<usize>().ok();
            if by_number.is_some_and(|number| number >= self.names.len()) {
                return Err(refusal(located, &format!("--from={from} names no earlier stage")));
            }
            let source = match self.stage(from).or(by_number) {
                Some(index) => CopySource::Stage(index),
                None => CopySource::Image(self.image(from)),
            };
            sources.push((from.clone(), source));
        }
        Ok(sources)
    }
}

fn refuse_foreign_platform(located: &Located, platform: Option<&str>) -> Result<(), DockerfileError> {
    let ours = format!("linux/{}", crate::base::architecture());
    match platform {
        Some(platform) if platform != ours => Err(DockerfileError::at(
            located.line,
            &located.text,
            Fault::Unsupported(format!("the platform {platform} on this machine ({ours})")),
        )),
        _ => Ok(()),
    }
}

fn only_needed(mut stages: Vec<Stage<'_>>) -> Vec<Stage<'_>> {
    let mut needed: BTreeSet<usize> = stages.last().map(|last| last.index).into_iter().collect();
    // Stages refer to earlier ones only, so one look from the last to the first finds all.
    for stage in stages.iter().rev() {
        if needed.contains(&stage.index) {
            needed.extend(stage.needs());
        }
    }
    stages.retain(|stage| needed.contains(&stage.index));
    stages
}

fn numbered(mut stages: Vec<Stage<'_>>) -> Vec<Stage<'_>> {
    let total = stages.iter().map(|stage| stage.instructions.len()).sum();
    let mut before = 0;
    for stage in &mut stages {
        (stage.before, stage.total) = (before, total);
        before += stage.instructions.len();
    }
    stages
}
