//! The steps, carried out. Each says what came out, or why that is not what was promised.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    log::Log,
    node::{self, DIRECTORY, Writer},
    rehearsal::Rehearsal,
    stage::{Stage, StageError, is_mounted},
    steps::Step,
    told::{before_next, codes, first_lines, why},
    tree::{Compare, Tree},
};
use crate::{
    exec::{Cmd, CmdError, Flow, Output},
    host::Host,
    model::{Bytes, observed::causes, quote::printable},
    node::database,
    ui::{Console, drill as said},
};

/// Where the rescued files go, as seen in there.
const RESCUED: &str = "/mnt/rescued";
/// How long a call of raidguard may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// How many commits the node makes in a step, and how long that may take.
const COMMITS: i64 = 25;
const COMMIT_LIMIT: Duration = Duration::from_secs(60);

/// Why a step did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The operator asked.
    Asked,
    /// What was promised did not come out.
    Failed(String),
}

impl From<StageError> for Stop {
    fn from(e: StageError) -> Self {
        Self::Failed(causes(&e))
    }
}

impl From<CmdError> for Stop {
    fn from(e: CmdError) -> Self {
        Self::Failed(causes(&e))
    }
}

fn failed<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(why.into()))
}

/// A drill as it goes.
#[derive(Debug)]
pub(super) struct Play<'a, 's> {
    pub(super) host: &'a Host,
    pub(super) console: &'a mut Console,
    pub(super) rehearsal: &'a Rehearsal,
    pub(super) stage: &'a mut Stage<'s>,
    pub(super) log: &'a mut Log,
    /// The node's files before they moved.
    original: Tree,
    writer: Option<Writer>,
    /// The newest commit that was acknowledged.
    version: i64,
    /// The node's files as of that commit.
    committed: Option<Tree>,
    /// The last call of raidguard, as it would be typed.
    pub(super) command: Option<String>,
}

impl<'a, 's> Play<'a, 's> {
    /// Makes the node and the disks.
    pub(super) fn begin(
        host: &'a Host,
        console: &'a mut Console,
        rehearsal: &'a Rehearsal,
        stage: &'a mut Stage<'s>,
        log: &'a mut Log,
    ) -> Result<Self, Stop> {
        node::make(rehearsal).map_err(|e| Stop::Failed(causes(&e)))?;
        for _ in 0..=rehearsal.members() {
            stage.add_disk()?;
        }
        let original = tree(Path::new(DIRECTORY))?;
        Ok(Self {
            host,
            console,
            rehearsal,
            stage,
            log,
            original,
            writer: None,
            version: 0,
            committed: None,
            command: None,
        })
    }

    /// The node's size and number of files, in words.
    pub(super) fn node_says(&self) -> String {
        format!("{} files, {}", self.original.files(), Bytes(self.original.bytes()))
    }

    /// Carries a step out.
    pub(super) fn act(&mut self, step: Step) -> Result<String, Stop> {
        match step {
            Step::Setup => self.setup(),
            Step::Check | Step::CheckAgain => self.check_is_ok(),
            Step::Work => self.work(),
            Step::Pull => self.pull(),
            Step::Critical => self.check_is_not_ok(),
            Step::PowerCut => self.power_cut(),
            Step::Recover => self.recover(),
            Step::Replace => self.replace(),
            Step::OneLeft => self.one_left(),
        }
    }

    /// Ends what goes on by itself.
    pub(super) fn end(&mut self) {
        self.writer = None;
    }

    pub(super) fn mountpoint(&self) -> PathBuf {
        mountpoint(self.rehearsal)
    }

    /// The number of the disk that is lost: the last of the mirror's.
    fn lost(&self) -> usize {
        self.rehearsal.members() - 1
    }

    fn device(&self, number: usize) -> Result<PathBuf, Stop> {
        match self.stage.disk(number) {
            Some(disk) => Ok(disk.device.clone()),
            None => failed(format!("disk {} is gone", number + 1)),
        }
    }

    fn asked(&self) -> Result<(), Stop> {
        if self.host.interrupt().is_raised() { Err(Stop::Asked) } else { Ok(()) }
    }

    /// Runs something, whatever it answers.
    fn run(&mut self, cmd: Cmd) -> Result<Output, Stop> {
        let line = cmd.line();
        let every: Vec<i32> = (0..=255).collect();
        let cmd = cmd.accept(&every).timeout(LIMIT);
        let host = self.host;
        let mut look = || if host.interrupt().is_raised() { Flow::Stop } else { Flow::Continue };
        let result = host.runner().run_watched(&cmd, &mut look);
        self.log.ran(&line, &result);
        self.asked()?;
        Ok(result?)
    }

    /// Calls raidguard, said to the operator as it would be typed.
    fn raidguard(&mut self, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Result<Output, Stop> {
        let mut cmd = Cmd::raidguard(&self.stage.program);
        for arg in args {
            cmd = cmd.arg(arg.as_ref());
        }
        let line = cmd.line();
        self.console.say(said::command(&line));
        self.command = Some(line);
        self.run(cmd)
    }

    fn show(&self, answer: &str) {
        if !answer.trim().is_empty() {
            self.console.say(said::answered(answer));
        }
    }

    /// As [`Self::raidguard`], where only this exit code is right.
    fn raidguard_ends(&mut self, code: i32, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Result<Output, Stop> {
        let output = self.raidguard(args)?;
        if output.code == code {
            return Ok(output);
        }
        self.show(&format!("{}{}", output.errors(), output.text()));
        let why = why(&output.errors(), &output.text());
        let why = why.map(|why| format!(": {}", printable(&why))).unwrap_or_default();
        failed(format!("it ended with exit code {} instead of {code}{why}", output.code))
    }

    fn setup(&mut self) -> Result<String, Stop> {
        let r = self.rehearsal;
        let devices = (0..r.members()).map(|n| self.device(n)).collect::<Result<Vec<_>, _>>()?;
        let flags = ["--hdd", "--usb", "--device", "--device"];
        let level = r.level.to_string();
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"setup"];
        for (flag, device) in flags.iter().zip(&devices) {
            args.extend([flag as &dyn AsRef<std::ffi::OsStr>, device]);
        }
        args.extend([&"--level" as &dyn AsRef<std::ffi::OsStr>, &level, &"--name", &r.name]);
        args.extend([&"--lightning-dir" as &dyn AsRef<std::ffi::OsStr>, &DIRECTORY, &"--no-node"]);
        let scheduler = if r.cron { "cron" } else { "none" };
        args.extend([&"--scheduler" as &dyn AsRef<std::ffi::OsStr>, &scheduler, &"--yes"]);
        self.raidguard_ends(0, &args)?;
        let directory = Path::new(DIRECTORY);
        if !fs::canonicalize(directory).is_ok_and(|path| path.starts_with(self.mountpoint())) {
            return failed(format!("{DIRECTORY} does not lead to the mirror"));
        }
        let now = tree(directory)?;
        same(&self.original, &now, Compare::All)?;
        Ok(format!("{}: hashes, owners, modes, times all equal", self.node_says()))
    }

    fn check_is_ok(&mut self) -> Result<String, Stop> {
        let output = self.raidguard_ends(0, &[&"check"])?;
        self.show(&output.text());
        Ok("ok".to_owned())
    }

    /// Until the node has made this many more commits.
    fn commits(&mut self) -> Result<i64, Stop> {
        let began = Instant::now();
        let Some(writer) = &self.writer else { return failed("nobody works") };
        while writer.committed() == 0 && !writer.has_ended() && began.elapsed() < COMMIT_LIMIT {
            self.asked()?;
            thread::sleep(Duration::from_millis(10));
        }
        let first = writer.committed();
        while writer.committed() < first + COMMITS {
            self.asked()?;
            if writer.has_ended() {
                return match self.writer.take().map(Writer::stop) {
                    Some(Err(e)) => failed(format!("the node cannot commit any more: {}", causes(&e))),
                    _ => failed("the node has ended by itself"),
                };
            }
            if began.elapsed() > COMMIT_LIMIT {
                return failed(format!("{COMMITS} commits took longer than {} s", COMMIT_LIMIT.as_secs()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.version = writer.committed();
        Ok(self.version - first)
    }

    fn work(&mut self) -> Result<String, Stop> {
        let database = Path::new(DIRECTORY).join(self.rehearsal.database());
        self.writer = Some(Writer::start(database).map_err(|e| Stop::Failed(causes(&e)))?);
        let count = self.commits()?;
        Ok(format!("{count} commits; data_version {}", self.version))
    }

    fn pull(&mut self) -> Result<String, Stop> {
        let lost = self.lost();
        let device = self.device(lost)?;
        if let (Some(disk), Some(writer)) = (self.stage.disk(lost), &self.writer) {
            let _quiet = writer.between();
            self.stage.pull(disk)?;
        }
        let count = self.commits()?;
        Ok(format!("{} gone, {count} more commits; data_version {}", device.display(), self.version))
    }

    fn check_is_not_ok(&mut self) -> Result<String, Stop> {
        // Where the level can lose more than one, redundancy is left, and it is a warning.
        let (code, word) =
            if self.rehearsal.level.survives() == 1 { (2, "critical") } else { (1, "warning") };
        let output = self.raidguard_ends(code, &[&"check"])?;
        let text = output.text();
        self.show(&text);
        let codes = codes(&text);
        if !codes.iter().any(|code| code == "MIR-PULLED" || code == "MIR-MISSING") {
            return failed(format!("it does not name the disk: {}", codes.join(", ")));
        }
        Ok(format!("{word}: {}", codes.join(", ")))
    }

    fn power_cut(&mut self) -> Result<String, Stop> {
        if let Some(writer) = self.writer.take() {
            self.version = writer.stop().map_err(|e| Stop::Failed(causes(&e)))?;
        }
        self.committed = Some(tree(Path::new(DIRECTORY))?);
        let (mountpoint, members, lost) = (self.mountpoint(), self.rehearsal.members(), self.lost());
        self.stage.cut_power(&mountpoint, members, lost)?;
        // As the machine does at its start.
        let mounted = self.run(Cmd::change("mount").arg(&mountpoint))?;
        if mounted.code == 0 || is_mounted(&mountpoint)? {
            return failed("the mirror was mounted by itself, though a disk is missing");
        }
        let name = self.rehearsal.name.clone();
        let output = self.raidguard_ends(3, &[&"guard", &name])?;
        self.show(&first_lines(&output.errors(), 3));
        Ok(format!("the guard refuses; last commit: data_version {}", self.version))
    }

    fn recover(&mut self) -> Result<String, Stop> {
        let lost = self.lost();
        let survivors: Vec<usize> = (0..self.rehearsal.members()).filter(|n| *n != lost).collect();
        let devices = survivors.iter().map(|n| self.device(*n)).collect::<Result<Vec<_>, _>>()?;
        let hashes =
            |stage: &Stage<'_>| survivors.iter().map(|n| stage.hash(*n)).collect::<Result<Vec<_>, _>>();
        let before = hashes(self.stage)?;
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"recover", &"--degraded"];
        for device in &devices {
            args.extend([&"--from" as &dyn AsRef<std::ffi::OsStr>, device]);
        }
        args.extend([&"--to" as &dyn AsRef<std::ffi::OsStr>, &RESCUED, &"--all", &"--yes"]);
        let output = self.raidguard_ends(0, &args)?;
        self.show(&before_next(&output.text()));
        let rescued = rescued(Path::new(RESCUED), self.rehearsal.database())?;
        let now = tree(&rescued)?;
        let Some(committed) = &self.committed else { return failed("nothing was committed") };
        same(committed, &now, Compare::Rescued)?;
        let scratch = Path::new("/var/tmp/drill-database");
        let version = version(&rescued.join(self.rehearsal.database()), scratch)?;
        if version != self.version {
            return failed(format!("data_version {version} came out, and {} was acknowledged", self.version));
        }
        if hashes(self.stage)? != before {
            return failed("the disk that was read from is not the same as before");
        }
        if !Path::new(RESCUED).join("RECOVERY.md").is_file() {
            return failed("there is no RECOVERY.md beside the files");
        }
        Ok(format!("data_version {version}, the last; all {} files; disk unchanged", committed.files()))
    }

    fn replace(&mut self) -> Result<String, Stop> {
        let new = self.device(self.rehearsal.members())?;
        let name = self.rehearsal.name.clone();
        let output =
            self.raidguard_ends(0, &[&"replace", &name, &"--old", &"missing", &"--new", &new, &"--yes"])?;
        self.show(&first_lines(&output.text(), 12));
        let files = self.still_there()?;
        Ok(format!("{} is in; all {files} files equal", new.display()))
    }

    /// Compares what the node's directory leads to with what was committed.
    fn still_there(&self) -> Result<usize, Stop> {
        let Some(committed) = &self.committed else { return failed("nothing was committed") };
        same(committed, &tree(Path::new(DIRECTORY))?, Compare::Rescued)?;
        let there = version(
            &Path::new(DIRECTORY).join(self.rehearsal.database()),
            Path::new("/var/tmp/drill-database"),
        )?;
        if there == self.version {
            return Ok(committed.files());
        }
        failed(format!("data_version {there} is there, and {} was acknowledged", self.version))
    }

    fn one_left(&mut self) -> Result<String, Stop> {
        let (mountpoint, r) = (self.mountpoint(), self.rehearsal);
        self.stage.unmount(&mountpoint)?;
        let lost = self.lost();
        let gone: Vec<usize> = (0..r.members()).filter(|n| *n != lost).take(r.level.survives()).collect();
        for number in gone {
            self.stage.remove(number)?;
        }
        let new = self.device(r.members())?;
        let mount = Cmd::change("mount").args(["-o", "ro,degraded"]).arg(&new).arg(&mountpoint);
        let output = self.run(mount)?;
        if output.code != 0 {
            return failed(format!("it cannot be mounted: {}", printable(output.errors().trim())));
        }
        let files = self.still_there()?;
        self.stage.unmount(&mountpoint)?;
        Ok(format!("all {files} files equal; data_version {}", self.version))
    }
}

pub(super) fn mountpoint(rehearsal: &Rehearsal) -> PathBuf {
    Path::new("/srv").join(&rehearsal.name)
}

fn tree(path: &Path) -> Result<Tree, Stop> {
    Tree::of(path).map_err(|e| Stop::Failed(format!("{} cannot be read: {e}", path.display())))
}

fn same(before: &Tree, now: &Tree, what: Compare) -> Result<(), Stop> {
    let differences = before.differences(now, what);
    if differences.is_empty() { Ok(()) } else { failed(differences.join("; ")) }
}

/// How new a database is. It is read from a copy.
fn version(database: &Path, scratch: &Path) -> Result<i64, Stop> {
    match database::check_on_scratch(database, scratch) {
        Ok(version) => version.data_version.map_or_else(|| failed("the database has no data_version"), Ok),
        Err(e) => failed(format!("the database does not pass: {}", causes(&e))),
    }
}

/// Where the node's directory is among the rescued files: where its database is.
fn rescued(to: &Path, database: &str) -> Result<PathBuf, Stop> {
    let mut left = vec![to.to_owned()];
    while let Some(dir) = left.pop() {
        if dir.join(database).is_file() {
            return Ok(dir);
        }
        let entries =
            fs::read_dir(&dir).map_err(|e| Stop::Failed(format!("{} cannot be read: {e}", dir.display())))?;
        left.extend(entries.flatten().map(|e| e.path()).filter(|path| path.is_dir() && !path.is_symlink()));
    }
    failed(format!("there is no {database} among what came out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rescued_directory_is_where_its_database_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(rescued(dir.path(), "bitcoin/db"), Err(Stop::Failed(_))));
        let deep = dir.path().join("lightning/bitcoin");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("db"), "").unwrap();
        assert_eq!(rescued(dir.path(), "bitcoin/db").unwrap(), dir.path().join("lightning"));
        assert_eq!(rescued(dir.path(), "db").unwrap(), deep);
    }
}
