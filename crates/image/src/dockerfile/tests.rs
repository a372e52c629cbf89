use super::*;

fn single(command: &str) -> Instruction {
    let mut instructions = parse(&[command]).unwrap();
    assert_eq!(instructions.len(), 1, "{instructions:?}");
    instructions.remove(0).instruction
}

fn shell(text: &str) -> Instruction {
    Instruction::Run { command: CommandLine::Shell(text.to_owned()), scratch: Vec::new() }
}

fn fault(command: &str) -> Fault {
    parse(&[command]).unwrap_err().fault
}

#[test]
fn continuation_over_commands_comments_and_trailing_blanks_makes_one_line() {
    let commands = [
        "RUN cd /tmp/poetry && \\ ",
        "  poetry config virtualenvs.create false && \\",
        "# a comment",
        "",
        "poetry install",
    ];
    let instructions = parse(&commands).unwrap();
    assert_eq!(instructions.len(), 1);
    assert_eq!(instructions[0].line, 1);
    assert_eq!(
        instructions[0].instruction,
        shell("cd /tmp/poetry &&   poetry config virtualenvs.create false && poetry install")
    );
}

#[test]
fn commands_of_one_string_are_counted_by_line() {
    let instructions = parse(&["# syntax=docker/dockerfile:1\n\nFROM base\nrun true", "USER 7"]).unwrap();
    let lines: Vec<_> = instructions.iter().map(|located| (located.line, located.text.as_str())).collect();
    assert_eq!(lines, [(3, "FROM base"), (4, "run true"), (5, "USER 7")]);
}

#[test]
fn exec_form_needs_valid_json_and_is_shell_form_otherwise() {
    assert_eq!(
        single(r#"CMD ["sleep", "172800"]"#),
        Instruction::Cmd(CommandLine::Exec(vec!["sleep".to_owned(), "172800".to_owned()]))
    );
    assert_eq!(single("RUN [ -e /x ]"), shell("[ -e /x ]"));
}

#[test]
fn env_takes_quoted_pairs_and_the_old_form() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(single("ENV A='b c' D=e\\ f"), Instruction::Env(vec![pair("A", "'b c'"), pair("D", "e\\ f")]));
    assert_eq!(single("ENV A b c"), Instruction::Env(vec![pair("A", "b c")]));
    assert_eq!(fault("ENV A"), Fault::Arguments("ENV needs a value for A, as in A=value".to_owned()));
}

#[test]
fn env_value_quoted_over_two_lines_of_one_command_is_one_value() {
    assert_eq!(
        single("ENV KEY='one\ntwo'"),
        Instruction::Env(vec![("KEY".to_owned(), "'one\ntwo'".to_owned())])
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let unsupported = |text: &str| Fault::Unsupported(text.to_owned());
    assert_eq!(fault("COPY --parents a b"), unsupported("COPY with --parents"));
    assert_eq!(fault("ADD --checksum=sha256:1 a b"), unsupported("ADD with --checksum"));
    assert_eq!(fault("RUN --mount=type=ssh true"), unsupported("RUN with --mount=type=ssh"));
    assert_eq!(fault("RUN --network=host true"), unsupported("RUN with --network"));
    assert_eq!(fault("ADD https://a.b/c /c"), unsupported("ADD of a URL (fetch it in a RUN instead)"));
    assert!(fault("RUN --mount=type=secret,id=x true").to_string().contains("secrets=[…]"));
    assert!(fault("ONBUILD RUN true").to_string().contains("ONBUILD"));
    assert!(fault("RUN <<EOF\n#!/usr/bin/python\nEOF").to_string().contains("RUN python3 <<EOF"));
    assert_eq!(fault("RUNN true"), Fault::UnknownInstruction("RUNN".to_owned()));
    assert_eq!(
        parse(&["FROM a", "COPY --chmod=rwx a b"]).unwrap_err().to_string(),
        "Dockerfile line 2, `COPY --chmod=rwx a b`: COPY needs an octal mode, as in --chmod=755, found `rwx`"
    );
}

#[test]
fn stages_have_names_and_copies_have_flags() {
    assert_eq!(
        single("FROM --platform=$BUILDPLATFORM a AS Build"),
        Instruction::From {
            image: "a".to_owned(),
            platform: Some("$BUILDPLATFORM".to_owned()),
            name: Some("build".to_owned()),
        }
    );
    let copy = CopyInstruction {
        sources: vec!["a".to_owned(), "b c".to_owned()],
        destination: "/d/".to_owned(),
        from: Some("build".to_owned()),
        owner: Some("app:staff".to_owned()),
        mode: Some(0o755),
        ..CopyInstruction::default()
    };
    assert_eq!(
        single(r#"COPY --from=build --chown=app:staff --chmod=0755 --link ["a", "b c", "/d/"]"#),
        Instruction::Copy(copy)
    );
}

#[test]
fn caches_of_a_command_are_named_by_their_target() {
    assert_eq!(
        single("RUN --mount=type=cache,id=x,target=/root/.cache --mount=type=tmpfs,dst=/t pip list"),
        Instruction::Run {
            command: CommandLine::Shell("pip list".to_owned()),
            scratch: vec!["/root/.cache".to_owned(), "/t".to_owned()],
        }
    );
    assert!(fault("RUN --mount=type=cache,target=relative true").to_string().contains("absolute path"));
}

#[test]
fn heredocs_reach_over_commands_and_belong_to_their_instruction() {
    let lines = [
        "FROM a",
        "RUN <<EOF",
        "  one",
        "# kept",
        "",
        "EOF",
        "RUN cat <<-'A' > /x",
        "\ttwo",
        "\tA",
        "USER 7",
    ];
    let instructions: Vec<_> =
        parse(&lines).unwrap().into_iter().map(|located| located.instruction).collect();
    assert_eq!(instructions[1], shell("  one\n# kept\n\n"));
    assert_eq!(instructions[2], shell("cat <<-'A' > /x\n\ttwo\n\tA"));
    assert_eq!(instructions[3], Instruction::User("7".to_owned()));
    assert_eq!(instructions.len(), 4);
}

#[test]
fn here_string_and_shift_are_no_heredoc() {
    single("RUN cat <<<word && python -c 'print(1<<3)'");
}

#[test]
fn expansion_follows_docker() {
    let lookup = |name: &str| match name {
        "set" => Some("v w".to_owned()),
        "empty" => Some(String::new()),
        _ => None,
    };
    let cases = [
        ("$set/x", "v w/x"),
        ("${set}x", "v wx"),
        ("$setx", ""),
        ("${unset:-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${set:+alt}", "alt"),
        ("${unset:+alt}", ""),
        ("${unset:-${set}}", "v w"),
        ("\\$set", "$set"),
        ("'$set'", "$set"),
        ("\"$set \\\" \\x\"", "v w \" \\x"),
        ("'a'\"'\"'b'", "a'b"),
        ("a$", "a$"),
        ("$1x", "x"),
        ("C:\\\\x", "C:\\x"),
    ];
    for (word, expected) in cases {
        assert_eq!(expand(word, &lookup).unwrap(), expected, "{word}");
    }
    assert_eq!(expand("'x", &lookup).unwrap_err().to_string(), "a single quote is not closed");
    assert_eq!(
        expand("${unset:?is missing}", &lookup).unwrap_err().to_string(),
        "the variable unset is required: is missing"
    );
    expand("${set", &lookup).unwrap_err();
    expand("${}", &lookup).unwrap_err();
}
