//! What one Dockerfile command can say.

/// A command in shell form (given to the shell as it stands) or exec form (an argument vector).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell.
    Shell(String),
    /// Arguments, run without a shell.
    Exec(Vec<String>),
}

impl CommandLine {
    /// The argument vector, with `shell` before a shell form.
    pub fn argv(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(argv) => argv.clone(),
            Self::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }
}

/// What one Dockerfile command says. Words still hold their quotes and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `FROM`: the beginning of a stage.
    From {
        /// The image, the name of a parent or of an earlier stage.
        image: String,
        /// `--platform`, if given.
        platform: Option<String>,
        /// The name after `AS`, in lower case.
        name: Option<String>,
    },
    /// `RUN`.
    Run {
        /// What to run.
        command: CommandLine,
        /// Directories that are empty when the command starts and not kept: `--mount` of caches.
        scratch: Vec<String>,
    },
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `COPY`, and `ADD` of local files.
    Copy(CopyInstruction),
    /// `ENV`.
    Env(Vec<(String, String)>),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `ARG`: names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER`.
    User(String),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `EXPOSE`, `VOLUME`, `STOPSIGNAL`, `HEALTHCHECK`, `MAINTAINER`: nothing here acts on them.
    Noted {
        /// The instruction's name in capitals.
        keyword: String,
    },
}

/// A `COPY` or `ADD` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyInstruction {
    /// Paths or patterns, and names of [`Self::inline`].
    pub sources: Vec<String>,
    /// Path in the image.
    pub destination: String,
    /// `--from`: a stage or an image.
    pub from: Option<String>,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<u32>,
    /// Files that stand in the Dockerfile itself.
    pub inline: Vec<InlineFile>,
    /// Archives give their contents: `ADD`.
    pub unpack: bool,
}

/// A file written as a heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether variables in the text are replaced.
    pub expand: bool,
}
