//! The `chat-service` binary: arguments and environment in, an exit code out.

use std::{env, process::ExitCode, sync::Arc};

use chat_service::{
    cli::{self, Command},
    config::Config,
    healthcheck, logging,
    server::{self, Server, StartError},
    shutdown,
};

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return fail(2, &error),
    };
    match command {
        Command::Help => print(&cli::help_text()),
        Command::Version => print(cli::version_text()),
        Command::Run | Command::CheckConfig | Command::Healthcheck => match Config::from_vars(variable) {
            Err(error) => fail(2, &error.to_string()),
            Ok(config) => match command {
                Command::CheckConfig => print("the configuration is fine"),
                Command::Healthcheck => healthcheck::run(config.host, config.port),
                _ => run(config),
            },
        },
    }
}

fn run(config: Config) -> ExitCode {
    if let Err(error) = logging::init(config.log_level, config.log_format) {
        return fail(1, &format!("cannot log: {error}"));
    }
    for warning in config.warnings() {
        log::warn!("{warning}");
    }
    let (worker_threads, drain_timeout) = (config.worker_threads, config.drain_timeout);
    let executor = Arc::new(smol::Executor::new());
    let address = (config.host, config.port);
    let server = match Server::bind(config, &executor) {
        Ok(server) => server,
        Err(StartError::Listen(error)) => {
            return fail(1, &format!("cannot listen on {}:{}: {error}", address.0, address.1));
        }
        Err(StartError::Setting(problem)) => return fail(2, &problem),
    };
    let stop = match shutdown::signal() {
        Ok(stop) => stop,
        Err(error) => return fail(1, &format!("cannot listen for signals: {error}")),
    };
    match server.local_addr() {
        Ok(address) => log::info!("listening on http://{address}"),
        Err(error) => log::warn!("listening, on an address that the system does not tell: {error}"),
    }
    let stop = async {
        stop.await;
        shutdown::end_after(drain_timeout);
    };
    server::block_on(&executor, worker_threads, server.run(stop));
    ExitCode::SUCCESS
}

/// A variable of the environment. What is not UTF-8 in it shows as such, and is refused: it must not count as unset.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    // A reader that has gone is no reason to panic.
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "chat-service: {message}");
    ExitCode::from(code)
}
