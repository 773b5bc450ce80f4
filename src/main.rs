//! The raidguard binary: parse, log, run, exit.

use std::process::ExitCode;

use clap::Parser as _;
use raidguard::{cli, exec::Interrupt, host::Host, ops::Trouble, ui::Console};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    log(cli.verbose);
    let interrupt = match Interrupt::on_signals() {
        Ok(interrupt) => interrupt,
        Err(e) => {
            let trouble = Trouble::failed("signals could not be caught, so nothing was begun", e);
            Console::default().problem(&trouble.problem());
            return ExitCode::FAILURE;
        }
    };
    let (host, mut console) = (Host::real(interrupt.clone()), Console::new(interrupt));
    match cli::run(cli.verb, &host, &mut console) {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            console.problem(&trouble.problem());
            ExitCode::from(trouble.exit() as u8)
        }
    }
}

/// Standard error as asked for; the journal too, where systemd runs.
fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "raidguard=info,warn",
        _ => "raidguard=debug,warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(anstream::stderr)
        .with_target(false)
        .without_time()
        .with_filter(filter);
    let journal = tracing_journald::layer().ok().map(|layer| {
        layer.with_syslog_identifier("raidguard".to_owned()).with_filter(EnvFilter::new("raidguard=info"))
    });
    tracing_subscriber::registry().with(stderr).with(journal).init();
}
