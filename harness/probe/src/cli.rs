//! The command line.
//!
//! Start from [`parse`]. `SUBCOMMAND --spec JSON`, which is what the harness says, does not even reach
//! clap: every traffic of a check starts a process of ours.

use std::ffi::OsString;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser};
use serde::de::DeserializeOwned;
use strata_probe::{
    ApiSpec, DnsSpec, RequestSpec, RequestsSpec, Spec, TcpSpec, UdpSpec, WebSocketSpec,
};

/// Sends and serves traffic, to see how the network of a cluster behaves.
#[derive(Debug, Parser)]
#[command(name = "strata-probe", version, after_help = SPEC_HELP, disable_help_subcommand = true)]
pub(crate) enum Command {
    /// Sends HTTP requests; writes a reply a request.
    Request(RequestSpec),
    /// Opens a WebSocket, compares echoes; writes what came of it.
    Websocket(WebSocketSpec),
    /// Sends HTTP requests that differ; writes who answered each, and how.
    Requests(RequestsSpec),
    /// Looks a name up; writes what came of it and every exchange on the way.
    Dns(DnsSpec),
    /// Opens TCP connections, sends, compares the echo; writes a reply a connection.
    Tcp(TcpSpec),
    /// Sends datagrams; writes a reply a datagram.
    Udp(UdpSpec),
    /// Gets the version of the cluster's API server with the pod's own token.
    KubernetesApi(ApiSpec),
    /// Writes interfaces, addresses and the main routing table.
    Routes,
    /// Serves HTTP, TLS, TCP and UDP.
    Serve(ServeFlags),
    /// Sleeps until SIGTERM, reaps children.
    Pause,
    /// Writes the image of this binary to standard output, for `docker load` and `strata-lab load`.
    Image,
}

const SPEC_HELP: &str =
    "Every client also takes all of it as JSON: `--spec JSON`, or `--spec -` for standard input.";

/// What `serve` serves.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeFlags {
    /// HTTP/1.1 and h2 by prior knowledge [default: 8080, unless another kind of port is given].
    #[arg(long, env = "PROBE_HTTP", value_name = "PORT,…", value_delimiter = ',')]
    pub(crate) http: Vec<u16>,
    /// The same at 127.0.0.1 alone.
    #[arg(
        long,
        env = "PROBE_HTTP_LOCAL",
        value_name = "PORT,…",
        value_delimiter = ','
    )]
    pub(crate) http_local: Vec<u16>,
    /// The same at the pod's own address alone, which is POD_IP.
    #[arg(
        long,
        env = "PROBE_HTTP_OWN",
        value_name = "PORT,…",
        value_delimiter = ',',
        requires = "pod_ip"
    )]
    pub(crate) http_own: Vec<u16>,
    /// The pod's own address.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS", hide = true)]
    pub(crate) pod_ip: Option<IpAddr>,
    /// The same over TLS.
    #[arg(long, env = "PROBE_TLS", value_name = "PORT,…", value_delimiter = ',')]
    pub(crate) tls: Vec<u16>,
    /// The certificate chain, PEM; without, one is made at start.
    #[arg(
        long,
        env = "PROBE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        env = "PROBE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// The name that the certificate made at start is for.
    #[arg(
        long,
        env = "PROBE_TLS_NAME",
        value_name = "NAME",
        default_value = "localhost"
    )]
    pub(crate) tls_name: String,
    /// TCP echo.
    #[arg(long, env = "PROBE_TCP", value_name = "PORT,…", value_delimiter = ',')]
    pub(crate) tcp: Vec<u16>,
    /// TCP that says who it is at once.
    #[arg(
        long,
        env = "PROBE_TCP_FIRST",
        value_name = "PORT,…",
        value_delimiter = ','
    )]
    pub(crate) tcp_first: Vec<u16>,
    /// UDP.
    #[arg(long, env = "PROBE_UDP", value_name = "PORT,…", value_delimiter = ',')]
    pub(crate) udp: Vec<u16>,
    /// Start not ready.
    #[arg(long, env = "PROBE_NOT_READY")]
    pub(crate) not_ready: bool,
    /// How long to go on serving, not ready, after SIGTERM.
    #[arg(
        long,
        env = "PROBE_DRAIN_MS",
        value_name = "MS",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) drain_ms: u64,
    /// Not that long, once nothing has been asked for so long; health is not counted.
    #[arg(long, env = "PROBE_DRAIN_IDLE_MS", value_name = "MS")]
    pub(crate) drain_idle_ms: Option<u64>,
    /// End after so long as if asked to; without, serve until a signal.
    #[arg(long, env = "PROBE_FOR_MS", value_name = "MS")]
    pub(crate) for_ms: Option<u64>,
}

/// Why there is no command.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Help or version was asked for; this is it.
    Said(String),
    /// The command line is wrong, in one sentence.
    Wrong(String),
}

/// Reads the command line; the first argument is the program.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some((subcommand, json)) = as_specification(&arguments)? {
        return match subcommand {
            RequestSpec::SUBCOMMAND => read(&json).map(Command::Request),
            WebSocketSpec::SUBCOMMAND => read(&json).map(Command::Websocket),
            RequestsSpec::SUBCOMMAND => read(&json).map(Command::Requests),
            DnsSpec::SUBCOMMAND => read(&json).map(Command::Dns),
            TcpSpec::SUBCOMMAND => read(&json).map(Command::Tcp),
            UdpSpec::SUBCOMMAND => read(&json).map(Command::Udp),
            ApiSpec::SUBCOMMAND => read(&json).map(Command::KubernetesApi),
            other => Err(Stop::Wrong(format!(
                "there is no subcommand `{other}` that takes --spec"
            ))),
        };
    }
    Command::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Said(error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Stop::Wrong(
            "a subcommand is missing: request, requests, websocket, dns, tcp, udp, kubernetes-api, routes, serve, pause or image"
                .into(),
        ),
        _ => Stop::Wrong(sentence(&error.to_string())),
    })
}

/// The subcommand and the JSON, if it is the form with `--spec`.
fn as_specification(arguments: &[OsString]) -> Result<Option<(&str, String)>, Stop> {
    let text: Vec<&str> = arguments
        .iter()
        .map_while(|argument| argument.to_str())
        .collect();
    let is_spec = |argument: &&str| *argument == "--spec" || argument.starts_with("--spec=");
    if text.get(1) == Some(&"serve") || !text.iter().any(is_spec) {
        return Ok(None);
    }
    let (subcommand, json) = match text[..] {
        [_, subcommand, "--spec", json] => (subcommand, json),
        [_, subcommand, flag] if flag != "--spec" => {
            (subcommand, flag.trim_start_matches("--spec="))
        }
        _ => {
            return Err(Stop::Wrong(
                "--spec takes one value, JSON or -, and stands alone after the subcommand".into(),
            ));
        }
    };
    if json != "-" {
        return Ok(Some((subcommand, json.to_owned())));
    }
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .map_err(|error| {
            Stop::Wrong(format!(
                "reading the specification from standard input: {error}"
            ))
        })?;
    Ok(Some((subcommand, input)))
}

fn read<S: Spec + DeserializeOwned>(json: &str) -> Result<S, Stop> {
    serde_json::from_str(json).map_err(|error| {
        Stop::Wrong(format!(
            "the specification of `{}` is wrong: {error}",
            S::SUBCOMMAND
        ))
    })
}

/// Clap's message without its usage, on one line.
fn sentence(message: &str) -> String {
    let message = message.split("\n\nUsage:").next().unwrap_or(message);
    let message = message
        .split("\n\nFor more information")
        .next()
        .unwrap_or(message);
    let words: Vec<&str> = message
        .trim_start_matches("error: ")
        .split_whitespace()
        .collect();
    words.join(" ")
}
