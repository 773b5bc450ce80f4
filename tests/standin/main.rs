//! A stand-in for a Lightning node, for tests: it behaves toward its files as lightningd does, and is nothing else of one.
//!
//! It works in `DIR/bitcoin`, holds a lock on `DIR/lightningd-bitcoin.pid`, or another pid file, for its life, answers on
//! `lightning-rpc`, and commits an increasing `data_version` to `lightningd.sqlite3` with rollback journal and full syncs. What it has
//! committed it writes to a file or a device outside, a line each time, so that a test can tell whether any commit was lost.

#![allow(clippy::print_stderr, reason = "a program for tests")]
#![allow(clippy::disallowed_methods, reason = "it starts itself in the background")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{fcntl::FcntlArg, libc};
use rusqlite::Connection;

const USAGE: &str =
    "usage: standin-node --dir DIR [--pid-file FILE] [--committed FILE] [--stubborn] [--daemon | --stop]";
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Options {
    dir: PathBuf,
    pid_file: Option<PathBuf>,
    committed: Option<PathBuf>,
    /// It says that it stops, and goes on.
    stubborn: bool,
    daemon: bool,
    stop: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("standin-node: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut args = env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--dir") => options.dir = args.next().context(USAGE)?.into(),
            Some("--pid-file") => options.pid_file = Some(args.next().context(USAGE)?.into()),
            Some("--committed") => options.committed = Some(args.next().context(USAGE)?.into()),
            Some("--stubborn") => options.stubborn = true,
            Some("--daemon") => options.daemon = true,
            Some("--stop") => options.stop = true,
            _ => bail!(USAGE),
        }
    }
    anyhow::ensure!(options.dir.is_absolute(), USAGE);
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let network = options.dir.join("bitcoin");
    match (options.stop, options.daemon) {
        (true, _) => ask(&network, "stop").map(drop),
        (_, true) => in_background(&network),
        _ => serve(options, &network),
    }
}

/// Sends one line and waits for the answer.
fn ask(network: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(network.join("lightning-rpc")).context("no node answers")?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

/// Starts itself once more, and ends when that one answers.
fn in_background(network: &Path) -> Result<()> {
    let args = env::args_os().skip(1).filter(|arg| arg != "--daemon");
    Command::new(env::current_exe()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    for _ in 0..500 {
        if ask(network, "ping").is_ok() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    bail!("it did not begin to answer")
}

fn serve(options: &Options, network: &Path) -> Result<()> {
    fs::create_dir_all(network)?;
    env::set_current_dir(network)?;
    let pid_file = options.pid_file.clone().unwrap_or_else(|| options.dir.join("lightningd-bitcoin.pid"));
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o640).open(&pid_file)?;
    let whole = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&lock, FcntlArg::F_SETLK(&whole)).context("another node holds the pid file")?;
    lock.set_len(0)?;
    writeln!(&lock, "{}", std::process::id())?;
    if !Path::new("hsm_secret").exists() {
        let mut secret =
            fs::OpenOptions::new().create_new(true).write(true).mode(0o400).open("hsm_secret")?;
        secret.write_all(&[7; 32])?;
    }
    let mut version = 0;
    let db = open_database(&mut version)?;
    // A socket that a dead node left behind.
    let _ = fs::remove_file("lightning-rpc");
    let listener = UnixListener::bind("lightning-rpc")?;
    fs::set_permissions("lightning-rpc", fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    loop {
        version += 1;
        db.execute("UPDATE vars SET intval = ?1 WHERE name = 'data_version'", [version])?;
        if let Some(committed) = &options.committed {
            fs::write(committed, format!("{version}\n"))?;
        }
        match listener.accept() {
            Ok((stream, _)) if answer(&stream, options.stubborn)? => {
                db.close().map_err(|(_, e)| e)?;
                fs::remove_file("lightning-rpc")?;
                fs::remove_file(&pid_file)?;
                writeln!(&stream, "Shutdown complete")?;
                return Ok(());
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(e) => return Err(e.into()),
        }
    }
}

fn open_database(version: &mut i64) -> Result<Connection> {
    let db = Connection::open("lightningd.sqlite3")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS vars (name TEXT, val TEXT, intval INTEGER, blobval BLOB);
         CREATE TABLE IF NOT EXISTS version (version INTEGER);",
    )?;
    let found = db.query_row("SELECT intval FROM vars WHERE name = 'data_version'", [], |row| row.get(0));
    match found {
        Ok(found) => *version = found,
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            db.execute("INSERT INTO vars (name, intval) VALUES ('data_version', 0)", [])?;
        }
        Err(e) => return Err(e.into()),
    }
    Ok(db)
}

/// Reads what was asked. True: it shall stop; the answer to that comes when it has.
fn answer(mut stream: &UnixStream, stubborn: bool) -> Result<bool> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut line = String::new();
    // Somebody who only looks whether it answers sends nothing.
    let _ = BufReader::new(stream).read_line(&mut line);
    let stop = line.trim() == "stop";
    if stop && !stubborn {
        return Ok(true);
    }
    let _ = writeln!(stream, "{}", if stop { "I would rather not" } else { "pong" });
    Ok(false)
}
