//! The happy path of a rescue: one half of a mirror is left, and the node's files come out of it.

use std::{fs, path::Path};

use crate::{
    sandbox::{Sandbox, isolated},
    setup,
};

/// Everything of the machine that a rescue makes for a while.
fn made(s: &Sandbox) -> (String, Vec<String>, String, Vec<String>) {
    let loops = s.tool("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
    let list = |dir: &Path| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path().display().to_string())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        names.sort();
        names
    };
    let read_only = s.tool("blockdev", &["--getro", s.one()]);
    let rescues = list(Path::new("/run/raidguard/rescue"));
    (
        loops,
        [list(&s.scratch().join("layer")), rescues].concat(),
        read_only,
        list(Path::new("/run/raidguard")),
    )
}

#[test]
fn the_nodes_files_come_out_of_one_half_and_it_is_unchanged() {
    isolated("the_nodes_files_come_out_of_one_half_and_it_is_unchanged", |s| {
        let done = s.run(&setup(s, &[]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let node = s.tree_of("/srv/lightning/lightning/");
        s.reset_mounts();
        // The other half is gone.
        s.tool("wipefs", &["-qaf", s.two()]);
        s.tool("btrfs", &["device", "scan", "--forget"]);
        fs::create_dir(s.scratch().join("layer")).unwrap();
        let layer = s.scratch().join("layer").display().to_string();
        let to = s.scratch().join("rescued").display().to_string();
        let before = (s.devices(), made(s));
        let ran =
            s.run(&["-v", "recover", "--degraded", "--to", &to, "--scratch", &layer, "--yes", "--json"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(
            made(s).0 == before.1.0 && made(s).1 == before.1.1 && made(s).2 == before.1.2,
            "something is left: {:?}",
            made(s)
        );
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["freshness"], "newest");
        assert_eq!(report["networks"][0]["database"]["data_version"], 42);
        assert_eq!(report["networks"][0]["secret"]["kind"], "plain");
        let read: Vec<_> =
            report["survivors"].as_array().unwrap().iter().filter(|s| s["used"] == true).collect();
        assert!(
            matches!(&read[..], [one] if one["device"] == s.one() && one["unchanged"] == true),
            "{report}"
        );
        let out = s.tree_of(&format!("{to}/files/lightning/"));
        for file in ["bitcoin/lightningd.sqlite3", "bitcoin/hsm_secret"] {
            let facts = |tree: &std::collections::BTreeMap<_, String>| {
                let facts: &String = &tree[Path::new(file)];
                // Another name of the same file stayed behind.
                facts.split(' ').take(4).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(facts(&out), facts(&node), "{file}");
        }
        assert!(
            !Path::new(&format!("{to}/files/lightning/bitcoin/shared")).exists(),
            "only what makes the node"
        );
        let page = fs::read_to_string(format!("{to}/RECOVERY.md")).unwrap();
        assert!(page.contains("the newest state") && page.contains("data_version 42"), "{page}");
        assert_eq!(
            std::process::Command::new("sha256sum")
                .args(["--check", "--quiet", "SHA256SUMS"])
                .current_dir(&to)
                .status()
                .unwrap()
                .code(),
            Some(0)
        );
        let again = s.run(&["recover", "--degraded", "--to", &to, "--scratch", &layer, "--yes"]);
        assert_eq!(again.code, 3, "{}", again.stderr);
        let to = s.scratch().join("everything").display().to_string();
        let all = s.run(&[
            "recover",
            "--degraded",
            "--to",
            &to,
            "--scratch",
            &layer,
            "--yes",
            "--all",
            "--from",
            s.one(),
        ]);
        assert_eq!(all.code, 0, "{}{}", all.stdout, all.stderr);
        assert_eq!(s.tree_of(&format!("{to}/files/lightning/")), node);
        fs::remove_dir_all(s.scratch().join("rescued")).unwrap();
        fs::remove_dir_all(s.scratch().join("everything")).unwrap();
        assert_eq!(s.devices(), before.0, "the survivor was written to");
    });
}
