//! The raidguard binary: parse, log, run, exit.

use std::process::ExitCode;

use clap::Parser as _;
use raidguard::{cli, exec::Interrupt, host::Host, ops::Trouble, ui::Console};
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

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
    let own = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let named = |level| Targets::new().with_target("raidguard", level);
    let filter = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse().ok());
    let filter = filter.unwrap_or_else(|| named(own).with_default(LevelFilter::WARN));
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(anstream::stderr)
        .with_target(false)
        .without_time()
        .with_filter(filter);
    let journal = tracing_journald::layer().ok().map(|layer| {
        layer.with_syslog_identifier("raidguard".to_owned()).with_filter(named(LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(stderr).with(journal).init();
}
