//! The `homeport` command: configuration, command line, and the wiring of the server's parts.
//!
//! What a command does is in the library crates; here it is found out what is wanted, and said what came
//! of it. A failure is one line `error: …` on stderr, with what can be done about it below. Exit codes:
//! 0 done, 1 failed, 2 wrong usage.

mod bench;
mod cli;
mod data_dir;
mod doctor;
mod environment;
mod failure;
mod models;
mod namespace;
mod serving;
mod settings;
mod tokens;
mod up;
mod wiring;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{BenchCommand, Cli, Command, ModelsCommand, TokenCommand};
use failure::Failure;
use settings::Settings;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(
            shell,
            &mut Cli::command(),
            "homeport",
            &mut std::io::stdout(),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::load(&cli.global)?;
    match cli.command {
        Command::Up(flags) => up::run(&settings.for_up(flags)?)?,
        Command::Doctor { json } => return Ok(doctor::run(&settings.data_dir, json)?),
        Command::Env => environment::run(&settings.data_dir)?,
        Command::Token { command } => match command {
            TokenCommand::Create { name } => tokens::create(&settings.data_dir, &name)?,
            TokenCommand::List => tokens::list(&settings.data_dir)?,
            TokenCommand::Revoke { id } => tokens::revoke(&settings.data_dir, &id)?,
        },
        Command::Models { command } => match command {
            ModelsCommand::Import(import) => models::import(&settings.data_dir, import)?,
            ModelsCommand::List => models::list(&settings.data_dir)?,
            ModelsCommand::Rm { name } => models::remove(&settings.data_dir, &name)?,
        },
        Command::Bench { command } => match command {
            BenchCommand::Image(flags) => bench::image(&settings.data_dir, flags)?,
            BenchCommand::Start(flags) => bench::start(&settings.data_dir, flags)?,
        },
        Command::Completions { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
