//! What `polyloom eval` takes to ask a server.

use clap::{Args, ValueEnum};

/// An OpenAI-compatible server as the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Asking a server")]
pub struct EndpointArgs {
    /// Address of an OpenAI-compatible interface, such as http://localhost:8000/v1; it is asked, nothing else is
    #[arg(long, value_name = "URL", requires = "model", conflicts_with_all = ["models", "predictions"])]
    pub endpoint: Option<String>,
    /// Name of the model at the server
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    pub model: Option<String>,
    /// Which interface: messages that are replied to, or texts that are gone on with
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "chat",
        requires = "endpoint"
    )]
    pub api: Api,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 4, requires = "endpoint", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: u32,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "endpoint", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Environment variable that holds the key
    #[arg(
        long,
        value_name = "NAME",
        default_value = "OPENAI_API_KEY",
        requires = "endpoint"
    )]
    pub api_key_env: String,
    /// Seed that is sent with every request
    #[arg(long, value_name = "N", default_value_t = 0, requires = "endpoint")]
    pub seed: u64,
}

/// Interfaces of OpenAI's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// /chat/completions
    Chat,
    /// /completions
    Completions,
}
