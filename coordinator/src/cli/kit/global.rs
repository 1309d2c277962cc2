//! The options of every verb, and the connection that they describe.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::caller::CallerArgs;
use super::exit::Failure;
use crate::client::{Client, ConnectOptions};

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        help_heading = "Coordinator",
        env = "EVOCACHE_COORDINATOR",
        value_name = "URL",
        default_value = "http://127.0.0.1:7447"
    )]
    pub coordinator: String,
    /// Credentials for the coordinator.
    #[command(flatten)]
    pub caller: CallerArgs,
    /// Answer in JSON on stdout
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, help_heading = "Output", action = ArgAction::Count)]
    pub verbose: u8,
    /// No colors (as NO_COLOR does)
    #[arg(long, global = true, help_heading = "Output", env = "NO_COLOR", hide_env = true, value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub no_color: bool,
}

/// The options that name a coordinator and present credentials, as fields of [`Global`]. Verbs that call no coordinator do
/// not take them.
pub const ABOUT_COORDINATOR: [&str; 5] = ["coordinator", "ca", "client_cert", "client_key", "token_file"];

impl Global {
    /// Reads the credentials and connects.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let credentials = self.caller.credentials()?;
        let options = ConnectOptions { credentials, ..ConnectOptions::default() };
        Ok(Client::connect_with(&self.coordinator, options).await?)
    }
}
