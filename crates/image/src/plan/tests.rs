use std::collections::BTreeMap;

use homeport_content::Digest;

use super::*;
use crate::dockerfile::parse;

fn planned(commands: &[&str]) -> Vec<Step> {
    planned_with(commands, &BTreeMap::new()).unwrap()
}

fn planned_with(commands: &[&str], build_args: &BTreeMap<String, String>) -> Result<Vec<Step>, PlanError> {
    let instructions = parse(commands).unwrap();
    let stages = stages(&instructions, &["base"], build_args)?;
    let mut config = ImageConfig::default();
    config.set_env("PATH", "/usr/bin");
    config.cmd = vec!["python3".to_owned()];
    let steps = stages.iter().map(|stage| stage.steps(&config)).collect::<Result<Vec<_>, _>>()?;
    Ok(steps.concat())
}

fn source(commands: &[&str]) -> BaseSource {
    let instructions = parse(commands).unwrap();
    let nothing = BTreeMap::new();
    stages(&instructions, &["base"], &nothing).unwrap().pop().unwrap().base
}

fn plain_copy(sources: &[&str], destination: &str) -> Copy {
    Copy {
        from: CopySource::Context,
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        destination: destination.to_owned(),
        owner: None,
        mode: None,
        inline: Vec::new(),
        unpack: false,
    }
}

#[test]
fn base_is_parent_reference_or_scratch() {
    assert_eq!(source(&["FROM base"]), BaseSource::Parent { tag: "base".to_owned() });
    assert_eq!(source(&["FROM scratch"]), BaseSource::Scratch);
    assert_eq!(
        source(&["ARG V=3.11", "FROM python:${V}-slim AS final"]),
        BaseSource::Reference("python:3.11-slim".to_owned())
    );
}

#[test]
fn steps_of_a_slim_image_run_in_the_shell_with_the_environment_of_the_base() {
    let steps = planned(&["FROM base", "RUN pip install x", "ENV A='1 2' PATH=/opt/bin:$PATH", "RUN env"]);
    assert_eq!(steps[1].announcement(), "=> Step 2/4: RUN pip install x");
    let Action::Run { argv, build_env, .. } = &steps[1].action else { panic!("{:?}", steps[1]) };
    assert_eq!(argv, &["/bin/sh", "-c", "pip install x"]);
    assert!(build_env.is_empty());
    assert_eq!(steps[1].config.get_env("A"), None);
    assert_eq!(steps[3].config.get_env("A"), Some("1 2"));
    assert_eq!(steps[3].config.get_env("PATH"), Some("/opt/bin:/usr/bin"));
}

#[test]
fn values_of_one_env_see_the_environment_before_it() {
    let steps = planned(&["FROM base", "ENV a=1", "ENV a=2 b=$a"]);
    assert_eq!(steps[2].config.get_env("b"), Some("1"));
}

#[test]
fn shell_user_workdir_and_entrypoint_change_the_configuration() {
    let steps = planned(&[
        "FROM base",
        "SHELL [\"/bin/bash\", \"-lc\"]",
        "WORKDIR '/srv'",
        "WORKDIR app",
        "USER 1000:1000",
        "ENTRYPOINT [\"/start\"]",
        "CMD serve all",
        "RUN id",
    ]);
    assert_eq!(steps[3].action, Action::MakeDirectory { path: "/srv/app".to_owned() });
    let last = steps.last().unwrap();
    assert_eq!(last.config.user, "1000:1000");
    assert_eq!(last.config.entrypoint, ["/start"]);
    assert_eq!(last.config.cmd, ["/bin/bash", "-lc", "serve all"]);
    assert!(matches!(&last.action, Action::Run { argv, .. } if argv[..2] == ["/bin/bash", "-lc"]));
    // The command of the base belongs to the entrypoint of the base.
    assert!(steps[5].config.cmd.is_empty());
}

#[test]
fn arguments_reach_commands_but_not_the_image() {
    let given = BTreeMap::from([("B".to_owned(), "given".to_owned())]);
    let steps =
        planned_with(&["FROM base", "ARG A=x B=y C", "ENV D=$A-$B", "RUN true", "COPY $A $B/"], &given)
            .unwrap();
    assert_eq!(steps[2].config.get_env("D"), Some("x-given"));
    let Action::Run { build_env, .. } = &steps[3].action else { panic!() };
    assert_eq!(
        build_env,
        &BTreeMap::from([("A".to_owned(), "x".to_owned()), ("B".to_owned(), "given".to_owned())])
    );
    assert_eq!(steps[3].config.get_env("A"), None);
    assert_eq!(steps[4].action, Action::Copy(plain_copy(&["x"], "given/")));
}

#[test]
fn arguments_before_the_first_stage_hold_in_stages_that_declare_them() {
    let given = BTreeMap::from([("GIVEN".to_owned(), "2".to_owned())]);
    let steps = planned_with(
        &[
            "ARG A=1",
            "ARG GIVEN=1",
            "ARG OWN=1",
            "FROM base",
            "ENV SEEN=[$A]",
            "ARG A GIVEN OWN=3 TARGETARCH",
            "ENV SEEN=$A$GIVEN$OWN ARCH=$TARGETARCH",
        ],
        &given,
    )
    .unwrap();
    assert_eq!(steps[1].config.get_env("SEEN"), Some("[]"));
    assert_eq!(steps[3].config.get_env("SEEN"), Some("123"));
    assert_eq!(steps[3].config.get_env("ARCH"), Some(crate::base::architecture()));
}

#[test]
fn only_the_stages_that_the_last_one_needs_are_planned() {
    let instructions = parse(&[
        "FROM base AS Tools",
        "RUN tools",
        "FROM base AS unused",
        "RUN unused",
        "FROM tools AS more",
        "FROM scratch",
        "COPY --from=more /a /a",
        "COPY --from=0 /b /b",
        "COPY --from=base /c /c",
        "COPY --from=registry.test/uv:1 /uv /uv",
    ])
    .unwrap();
    let nothing = BTreeMap::new();
    let stages = stages(&instructions, &["base"], &nothing).unwrap();
    let shown: Vec<_> = stages.iter().map(|stage| (stage.index, stage.base.clone())).collect();
    let parent = BaseSource::Parent { tag: "base".to_owned() };
    assert_eq!(shown, [(0, parent.clone()), (2, BaseSource::Stage(0)), (3, BaseSource::Scratch)]);
    let config = ImageConfig::default();
    let steps: Vec<_> = stages.iter().flat_map(|stage| stage.steps(&config).unwrap()).collect();
    assert_eq!(steps.last().unwrap().announcement(), "=> Step 8/8: COPY --from=registry.test/uv:1 /uv /uv");
    let sources: Vec<_> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Copy(copy) => Some(copy.from.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        sources,
        [
            CopySource::Stage(2),
            CopySource::Stage(0),
            CopySource::Image(parent),
            CopySource::Image(BaseSource::Reference("registry.test/uv:1".to_owned())),
        ]
    );
}

#[test]
fn stage_names_hide_parents_and_later_stages_are_unknown() {
    assert_eq!(source(&["FROM scratch AS base", "FROM base"]), BaseSource::Stage(0));
    let error = planned_with(&["FROM base", "COPY --from=0 a b"], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("--from=0 names no earlier stage"), "{error}");
    let error = planned_with(&["FROM base", "COPY --from=$X a b"], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("takes no variables"), "{error}");
}

#[test]
fn files_written_in_the_dockerfile_get_variables_unless_quoted() {
    let steps = planned(&[
        "FROM base\nENV NAME=value\nCOPY --chown=7:8 --chmod=600 <<one <<'two' /etc/\n$NAME \"q\" \\$x\none\n$NAME\ntwo",
    ]);
    let expected = Copy {
        inline: vec![
            ("one".to_owned(), "value \"q\" $x\n".to_owned()),
            ("two".to_owned(), "$NAME\n".to_owned()),
        ],
        owner: Some("7:8".to_owned()),
        mode: Some(0o600),
        ..plain_copy(&["one", "two"], "/etc/")
    };
    assert_eq!(steps[2].action, Action::Copy(expected));
}

#[test]
fn missing_base_is_refused() {
    assert_eq!(planned_with(&["ARG A=1"], &BTreeMap::new()).unwrap_err(), PlanError::NoBase);
    let error = planned_with(&["RUN true", "FROM base"], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("only ARG may stand before FROM"), "{error}");
}

#[test]
fn every_field_of_a_step_changes_its_key() {
    let step = |change: &dyn Fn(&mut Step)| {
        let mut step = planned(&["FROM base", "RUN one two"]).remove(1);
        change(&mut step);
        step
    };
    let run = |argv: &[&str], build_env: &[(&str, &str)]| Action::Run {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        build_env: build_env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        scratch: Vec::new(),
    };
    let scratch = Action::Run {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "one two".to_owned()],
        build_env: BTreeMap::new(),
        scratch: vec!["/cache".to_owned()],
    };
    let copy = |sources: &[&str], destination: &str| Action::Copy(plain_copy(sources, destination));
    let copied = plain_copy(&["a"], "b");
    let texts = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let plain = StepInputs::default();
    let parent = CacheKey::of_image(&Digest::of(b"image"), &ImageConfig::default());
    let other_parent = CacheKey::of_image(&Digest::of(b"other image"), &ImageConfig::default());
    let keys = [
        parent,
        other_parent,
        parent.then(&step(&|_| {}), &plain),
        other_parent.then(&step(&|_| {}), &plain),
        parent.then(&step(&|step| step.action = run(&["one two"], &[])), &plain),
        parent.then(&step(&|step| step.action = run(&["one", "two"], &[])), &plain),
        parent.then(&step(&|step| step.action = run(&["one"], &[("two", "")])), &plain),
        parent.then(&step(&|step| step.action = run(&["one"], &[("", "two")])), &plain),
        parent.then(&step(&|step| step.config.set_env("A", "1")), &plain),
        parent.then(&step(&|step| step.config.workdir = "/x".to_owned()), &plain),
        parent.then(&step(&|step| step.config.user = "x".to_owned()), &plain),
        parent.then(&step(&|step| step.config.shell.push("x".to_owned())), &plain),
        parent.then(&step(&|step| step.config.cmd.push("x".to_owned())), &plain),
        parent.then(&step(&|step| step.config.entrypoint.push("x".to_owned())), &plain),
        parent.then(&step(&|step| drop(step.config.labels.insert("a".to_owned(), "b".to_owned()))), &plain),
        parent.then(&step(&|step| step.config.python = Some("3.11.2".to_owned())), &plain),
        parent.then(&step(&|_| {}), &StepInputs { env: texts(&[("S", "1")]), ..plain.clone() }),
        parent.then(&step(&|_| {}), &StepInputs { settings: texts(&[("S", "1")]), ..plain.clone() }),
        parent.then(&step(&|step| step.action = copy(&["a", "b"], "c")), &plain),
        parent.then(&step(&|step| step.action = copy(&["a"], "b")), &plain),
        parent.then(
            &step(&|step| step.action = copy(&["a"], "b")),
            &StepInputs { context: Some(Digest::of(b"context")), ..plain.clone() },
        ),
        parent.then(&step(&|step| step.action = scratch.clone()), &plain),
        parent.then(
            &step(&|step| step.action = Action::Copy(Copy { owner: Some("1".to_owned()), ..copied.clone() })),
            &plain,
        ),
        parent.then(
            &step(&|step| step.action = Action::Copy(Copy { mode: Some(0o1), ..copied.clone() })),
            &plain,
        ),
        parent.then(
            &step(&|step| {
                let inline = vec![("a".to_owned(), "text".to_owned())];
                step.action = Action::Copy(Copy { inline, ..copied.clone() });
            }),
            &plain,
        ),
        parent
            .then(&step(&|step| step.action = Action::Copy(Copy { unpack: true, ..copied.clone() })), &plain),
        parent.then(&step(&|step| step.action = Action::Base(BaseSource::Stage(0))), &plain),
        parent.then(&step(&|step| step.action = Action::MakeDirectory { path: "/a".to_owned() }), &plain),
        parent.then(&step(&|step| step.action = Action::Configure), &plain),
        parent.then(&step(&|step| step.action = Action::Base(BaseSource::Scratch)), &plain),
        parent.then(&step(&|step| step.action = Action::Base(BaseSource::Reference("a".to_owned()))), &plain),
        parent.then(
            &step(&|step| step.action = Action::Base(BaseSource::Parent { tag: "a".to_owned() })),
            &plain,
        ),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "key {index} is the same as one before it");
    }
}

#[test]
fn numbering_and_what_a_step_ignores_do_not_change_its_key() {
    let parent = CacheKey::of_image(&Digest::of(b"image"), &ImageConfig::default());
    let plain = StepInputs::default();
    let with_context = StepInputs { context: Some(Digest::of(b"context")), ..plain.clone() };
    let short = planned(&["FROM base", "RUN x"]).remove(1);
    let long = planned(&["FROM base", "run   x", "RUN y"]).remove(1);
    assert_eq!(parent.then(&short, &plain), parent.then(&long, &with_context));
}
