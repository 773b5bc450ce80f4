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
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{fcntl::FcntlArg, libc};
use rusqlite::Connection;

const USAGE: &str = "usage: standin-node --dir DIR [--pid-file FILE] [--committed FILE] [--times FILE] [--rows N] [--stubborn] \
    [--daemon | --stop]";
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Options {
    dir: PathBuf,
    pid_file: Option<PathBuf>,
    committed: Option<PathBuf>,
    /// Where it is noted how long each commit took, in microseconds, a line each; the next one begins at once.
    times: Option<PathBuf>,
    /// Each commit also changes one of so many rows of a kilobyte, now here, now there, as those of a node do.
    rows: i64,
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
            Some("--times") => options.times = Some(args.next().context(USAGE)?.into()),
            Some("--rows") => {
                let rows = args.next().context(USAGE)?;
                options.rows = rows.to_str().and_then(|rows| rows.parse().ok()).context(USAGE)?;
            }
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
    let db = open_database(&mut version, options.rows)?;
    let times =
        options.times.as_ref().map(|file| fs::OpenOptions::new().create(true).append(true).open(file));
    let mut times = times.transpose()?;
    // A socket that a dead node left behind.
    let _ = fs::remove_file("lightning-rpc");
    let listener = UnixListener::bind("lightning-rpc")?;
    fs::set_permissions("lightning-rpc", fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    loop {
        version += 1;
        let began = Instant::now();
        commit(&db, version, options.rows)?;
        if let Some(times) = &mut times {
            writeln!(times, "{}", began.elapsed().as_micros())?;
        }
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
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if times.is_none() {
                    thread::sleep(PAUSE);
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn commit(db: &Connection, version: i64, rows: i64) -> rusqlite::Result<()> {
    let all = db.unchecked_transaction()?;
    if rows > 0 {
        // A prime: it comes to each of them, far from the one before.
        let row = version.wrapping_mul(104_729).rem_euclid(rows) + 1;
        db.execute("UPDATE ballast SET body = randomblob(1000) WHERE id = ?1", [row])?;
    }
    db.execute("UPDATE vars SET intval = ?1 WHERE name = 'data_version'", [version])?;
    all.commit()
}

fn open_database(version: &mut i64, rows: i64) -> Result<Connection> {
    let db = Connection::open("lightningd.sqlite3")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS vars (name TEXT, val TEXT, intval INTEGER, blobval BLOB);
         CREATE TABLE IF NOT EXISTS version (version INTEGER);",
    )?;
    if rows > 0 {
        db.execute_batch("CREATE TABLE IF NOT EXISTS ballast (id INTEGER PRIMARY KEY, body BLOB);")?;
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT OR IGNORE INTO ballast SELECT i, randomblob(1000) FROM n",
            [rows],
        )?;
    }
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
