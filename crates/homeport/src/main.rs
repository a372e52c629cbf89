//! The `homeport` command: configuration, command line, and the wiring of the server's parts.
//!
//! What a command does is in the library crates; here it is found out what is wanted, and said what came
//! of it. A failure is one line `error: …` on stderr, with what can be done about it below. Exit codes:
//! 0 done, 1 failed, 2 wrong usage.

mod admin;
mod bench;
mod cli;
mod contents;
mod data_dir;
mod doctor;
mod environment;
mod failure;
mod fsck;
mod models;
mod namespace;
mod output;
mod progress;
mod serving;
mod settings;
mod storage;
mod timeline;
mod tokens;
mod up;
mod upkeep;
mod volumes;
mod wiring;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{BenchCommand, Cli, Command, ModelsCommand, StorageCommand, TokenCommand};
use failure::Failure;
use output::print;
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
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "homeport", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::load(&cli.global)?;
    let data_dir = &settings.data_dir;
    let text = match cli.command {
        Command::Up(flags) => {
            up::run(&settings.for_up(flags)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Doctor { json } => {
            let (text, healthy) = doctor::run(data_dir, json)?;
            print(&text)?;
            return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Bench { command } => {
            match command {
                BenchCommand::Image(flags) => bench::image(data_dir, flags)?,
                BenchCommand::Start(flags) => bench::start(data_dir, flags)?,
                BenchCommand::Commit(flags) => bench::commit(data_dir, flags)?,
                BenchCommand::Volume(flags) => bench::volume(data_dir, flags)?,
                BenchCommand::Calls(flags) => bench::calls(data_dir, flags)?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Fsck(flags) => {
            let (text, well) = fsck::run(settings, flags)?;
            print(&text)?;
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Env => environment::run(data_dir)?,
        Command::Token { command } => match command {
            TokenCommand::Create { name } => tokens::create(data_dir, &name)?,
            TokenCommand::List => tokens::list(data_dir)?,
            TokenCommand::Revoke { id } => tokens::revoke(data_dir, &id)?,
        },
        Command::Models { command } => match command {
            ModelsCommand::Import(import) => models::import(data_dir, import)?,
            ModelsCommand::List => models::list(data_dir)?,
            ModelsCommand::Rm { name } => models::remove(data_dir, &name)?,
        },
        Command::App { command } => timeline::run(data_dir, command)?,
        Command::Volume(flags) => volumes::run(data_dir, flags)?,
        Command::Gc(flags) => contents::collect(data_dir, &flags)?,
        Command::Du { json } => contents::usage(data_dir, json)?,
        Command::Storage { command } => match command {
            StorageCommand::Init(flags) => storage::init(data_dir, &flags)?,
            StorageCommand::Attach => storage::attach_and_say(data_dir)?,
            StorageCommand::Detach => storage::detach(data_dir)?,
            StorageCommand::Status { json } => storage::status(data_dir, json)?,
        },
        Command::Completions { .. } => String::new(),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
