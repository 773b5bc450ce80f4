//! Where the filesystems of a pool that was imported for a rescue are mounted: beside each other as they belong, as far as that can be.

use std::path::{Path, PathBuf};

use crate::backend::ParseError;

/// A filesystem of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dataset {
    pub(super) name: String,
    /// Where it is mounted, from a common place on; of one as it is listed, from `/`. Nothing of one that has no place of its own.
    pub(super) place: Option<PathBuf>,
}

/// A filesystem, and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arranged {
    pub(super) name: String,
    /// From the common place on; empty for the one that is mounted at that.
    pub(super) at: PathBuf,
}

/// Reads `zfs list -Hpo mountpoint,name` of a pool whose places begin at `root` (zpoolprops(7), `altroot`).
///
/// # Errors
/// A line is not of that form.
pub(super) fn parse(text: &str, root: &Path) -> Result<Vec<Dataset>, ParseError> {
    let line = |line: &str| {
        // A mount point may have a tab in it, a name never.
        let (at, name) = line.rsplit_once('\t').ok_or_else(|| ParseError::new("zfs list", line))?;
        let place = match at {
            "none" | "legacy" | "-" => None,
            at => {
                let inside =
                    Path::new(at).strip_prefix(root).map_err(|_| ParseError::new("zfs list", line))?;
                Some(Path::new("/").join(inside))
            }
        };
        Ok(Dataset { name: name.to_owned(), place })
    };
    text.lines().map(line).collect()
}

/// Which of them are mounted, and where. Where one belongs at the mirror's place, it and what belongs below that; else all: those without
/// a place of their own, or with one that another has, by their names.
pub(super) fn arrange(all: &[Dataset], belongs: Option<&Path>) -> Vec<Arranged> {
    let at = |place: &Path| all.iter().any(|dataset| dataset.place.as_deref() == Some(place));
    let below =
        |base: &Path| all.iter().all(|d| d.place.as_ref().is_some_and(|place| place.starts_with(base)));
    let places = || all.iter().filter_map(|dataset| dataset.place.as_deref());
    let (base, only_below) = match belongs.filter(|place| at(place)) {
        Some(place) => (place, true),
        None => (places().find(|place| below(place)).unwrap_or(Path::new("/")), false),
    };
    let mut arranged: Vec<Arranged> = Vec::new();
    let mut rest: Vec<&Dataset> = Vec::new();
    for dataset in all {
        match dataset.place.as_ref().map(|place| place.strip_prefix(base)) {
            Some(Ok(at)) if arranged.iter().all(|other| other.at != at) => {
                arranged.push(Arranged { name: dataset.name.clone(), at: at.to_owned() });
            }
            _ if only_below => {}
            _ => rest.push(dataset),
        }
    }
    // Nothing can be made in a filesystem that is only read.
    let covered = arranged.iter().any(|one| one.at.as_os_str().is_empty());
    for one in &mut arranged {
        if covered && !rest.is_empty() {
            one.at = Path::new("files").components().chain(one.at.components()).collect();
        }
    }
    // No name has a plus sign.
    let by_name =
        |d: &Dataset| Arranged { name: d.name.clone(), at: PathBuf::from(d.name.replace('/', "+")) };
    arranged.extend(rest.into_iter().map(by_name));
    // What is mounted at a place comes before what is below it.
    arranged.sort_by(|a, b| a.at.components().cmp(b.at.components()));
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arranged(list: &[(&str, &str)], belongs: Option<&str>) -> Vec<String> {
        let text: String = list.iter().map(|(at, name)| format!("{at}\t{name}\n")).collect();
        let all = parse(&text, Path::new("/run/x")).unwrap();
        let arranged = arrange(&all, belongs.map(Path::new));
        arranged.iter().map(|one| format!("{} {}", one.at.display(), one.name)).collect()
    }

    #[test]
    fn one_that_holds_all_is_mounted_at_the_place_itself() {
        let made = [("/run/x/srv/lightning", "r")];
        assert_eq!(arranged(&made, None), [" r"]);
        assert_eq!(arranged(&made, Some("/srv/lightning")), [" r"]);
        assert_eq!(arranged(&made, Some("/srv/other")), [" r"]);
        let nested = [("/run/x/tank", "r"), ("/run/x/tank/a", "r/a"), ("/run/x/tank/a/b", "r/a/b")];
        assert_eq!(arranged(&nested, None), [" r", "a r/a", "a/b r/a/b"]);
        assert_eq!(arranged(&[("/run/x", "r"), ("/run/x/home", "r/h")], None), [" r", "home r/h"]);
    }

    #[test]
    fn what_belongs_at_the_mirrors_place_is_mounted_and_nothing_beside_it() {
        let all = [
            ("/run/x/tank", "r"),
            ("/run/x/srv/node", "r/n"),
            ("/run/x/srv/node/db", "r/n/db"),
            ("none", "r/z"),
        ];
        assert_eq!(arranged(&all, Some("/srv/node")), [" r/n", "db r/n/db"]);
        assert_eq!(arranged(&all, None), ["r+z r/z", "srv/node r/n", "srv/node/db r/n/db", "tank r"]);
    }

    #[test]
    fn those_without_a_place_or_with_a_place_that_is_taken_go_by_their_names() {
        let all =
            [("none", "r"), ("/run/x", "r/a"), ("/run/x", "r/b"), ("legacy", "r/c"), ("/run/x/home", "r/h")];
        assert_eq!(arranged(&all, None), ["files r/a", "files/home r/h", "r r", "r+b r/b", "r+c r/c"]);
        assert_eq!(arranged(&[("none", "r")], None), ["r r"]);
    }

    #[test]
    fn what_is_listed_otherwise_is_an_error() {
        assert!(parse("tank", Path::new("/run/x")).is_err());
        assert!(parse("/elsewhere\ttank", Path::new("/run/x")).is_err());
    }
}
