use super::*;

fn single(command: &str) -> Instruction {
    let mut instructions = parse(&[command]).unwrap();
    assert_eq!(instructions.len(), 1, "{instructions:?}");
    instructions.remove(0).instruction
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
        Instruction::Run(CommandLine::Shell(
            "cd /tmp/poetry &&   poetry config virtualenvs.create false && poetry install".to_owned()
        ))
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
    assert_eq!(single("RUN [ -e /x ]"), Instruction::Run(CommandLine::Shell("[ -e /x ]".to_owned())));
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
    assert_eq!(fault("COPY --from=x/uv:latest /uv /.uv/uv"), unsupported("COPY with --from"));
    assert_eq!(fault("RUN --mount=type=cache,target=/x pip list"), unsupported("RUN with --mount"));
    assert_eq!(fault("RUN cat <<EOF > /x\nhello\nEOF"), unsupported("RUN with a heredoc"));
    assert_eq!(fault("ADD https://a.b/c /c"), unsupported("ADD of a URL (fetch it in a RUN instead)"));
    assert_eq!(fault("ONBUILD RUN true"), unsupported("ONBUILD"));
    assert_eq!(fault("RUNN true"), Fault::UnknownInstruction("RUNN".to_owned()));
    assert_eq!(
        parse(&["FROM a", "COPY --chown=1 a b"]).unwrap_err().to_string(),
        "Dockerfile line 2, `COPY --chown=1 a b`: COPY with --chown is not supported yet"
    );
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
