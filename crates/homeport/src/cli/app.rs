//! `homeport app …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Show how the containers of an app started, stage by stage
    ///
    /// One line for each container, and below what the stages take. The server remembers all containers that
    /// run and the last thousand that did, until it ends itself.
    Timeline {
        /// Its name, or its id, `ap-…`. Of several apps with a name the newest is shown
        app: String,
        /// Environment of the app, where several have one of this name
        #[arg(long = "env", value_name = "NAME", default_value = "", hide_default_value = true)]
        environment: String,
        /// Show the last so many starts
        #[arg(long, short = 'n', value_name = "N", default_value = "30")]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
