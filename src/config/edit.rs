//! A declaration changed where it has to be, and otherwise left as people wrote it.

use super::{Config, ConfigError, Member, Mirror, parse};

const HEADER: &str = "# What raidguard takes care of. Written by `raidguard setup`; edit it with care: a key that is not known is an error.\n";

pub(super) fn block(mirror: &Mirror) -> Result<String, ConfigError> {
    let one = Config { mirror: vec![mirror.clone()], notify: None };
    toml::to_string(&one).map_err(|e| ConfigError::Value(e.to_string()))
}

/// The declaration `before` with a mirror added at its end. What people wrote before stays as it is.
///
/// # Errors
/// The whole would make no sense.
pub fn with_mirror(before: Option<&str>, mirror: &Mirror) -> Result<String, ConfigError> {
    let before = before.unwrap_or(HEADER);
    let gap = if before.ends_with('\n') { "\n" } else { "\n\n" };
    let after = format!("{before}{gap}{}", block(mirror)?);
    parse(&after)?;
    Ok(after)
}

/// A declaration with one of a mirror's members, known by the number that it had, as it is now. Everything else stays as people wrote it.
///
/// # Errors
/// There is no such member, or the whole would make no sense.
pub fn with_member(text: &str, name: &str, was: &str, member: &Member) -> Result<String, ConfigError> {
    let mut wanted = parse(text)?;
    let none = || ConfigError::Value(format!("mirror `{name}` has no member {was}"));
    let index = wanted.mirror.iter().position(|m| m.name == name).ok_or_else(none)?;
    let mirror = wanted.mirror.get_mut(index).ok_or_else(none)?;
    let place = mirror.member.iter().position(|m| m.id == was).ok_or_else(none)?;
    *mirror.member.get_mut(place).ok_or_else(none)? = member.clone();
    let table = toml::to_string(member).map_err(|e| ConfigError::Value(e.to_string()))?;
    let after = with_table(text, (index, place), &table);
    // Text that people laid out in another way is not guessed at.
    if parse(&after)? == wanted {
        Ok(after)
    } else {
        Err(ConfigError::Value(format!(
            "the table of member {was} of mirror `{name}` could not be found: write into it by hand:\n{table}"
        )))
    }
}

/// `text` with the keys of the `place`-th `[[mirror.member]]` of the `index`-th mirror in the place of those there; comments stay.
fn with_table(text: &str, (index, place): (usize, usize), table: &str) -> String {
    let (mut mirrors, mut members, mut inside) = (0_usize, 0_usize, false);
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if trimmed.starts_with('[') {
            inside = false;
            if trimmed.starts_with("[[mirror]]") {
                (mirrors, members) = (mirrors + 1, 0);
            } else if trimmed.starts_with("[[mirror.member]]") {
                members += 1;
                inside = (mirrors, members) == (index + 1, place + 1);
                out.push_str(line);
                if inside {
                    out.push_str(table);
                }
                continue;
            }
        }
        if !inside || trimmed.is_empty() || trimmed.starts_with('#') {
            out.push_str(line);
        }
    }
    out
}

/// What is left of a declaration without one of its mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It was not in it.
    Unchanged,
    /// This.
    Text(String),
    /// It was the only one.
    Nothing,
}

/// A declaration without a mirror: from its `[[mirror]]` line to the next table that is not the mirror's own.
///
/// # Errors
/// It makes no sense, before or afterwards.
pub fn without_mirror(text: &str, name: &str) -> Result<Left, ConfigError> {
    let config = parse(text)?;
    let Some(index) = config.mirror.iter().position(|m| m.name == name) else { return Ok(Left::Unchanged) };
    if config.mirror.len() == 1 && config.notify.is_none() {
        return Ok(Left::Nothing);
    }
    let after = without_table(text, index);
    parse(&after)?;
    Ok(Left::Text(after))
}

/// `text` without its `index`-th `[[mirror]]` table.
fn without_table(text: &str, index: usize) -> String {
    let (mut seen, mut inside) = (0, false);
    let keep = |line: &&str| {
        let line = line.trim_start();
        if line.starts_with("[[mirror]]") {
            inside = seen == index;
            seen += 1;
        } else if line.starts_with('[') && !line.starts_with("[mirror.") && !line.starts_with("[[mirror.") {
            inside = false;
        }
        !inside
    };
    text.split_inclusive('\n').filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tests::mirror, model::Bytes};

    #[test]
    fn a_mirror_comes_and_goes_and_the_rest_stays() {
        let one = with_mirror(None, &mirror("lightning")).unwrap();
        assert_eq!(parse(&one).unwrap().mirror, [mirror("lightning")]);
        let edited = format!("{one}# a note\n");
        let two = with_mirror(Some(&edited), &mirror("second")).unwrap();
        assert_eq!(parse(&two).unwrap().mirror.len(), 2);
        let Left::Text(back) = without_mirror(&two, "second").unwrap() else { panic!("{two}") };
        assert_eq!(back.trim_end(), edited.trim_end());
        assert_eq!(without_mirror(&one, "lightning").unwrap(), Left::Nothing);
        assert_eq!(without_mirror(&one, "third").unwrap(), Left::Unchanged);
        assert!(with_mirror(Some(&one), &mirror("lightning")).is_err(), "twice");
        let told = format!("{one}\n[notify]\nmail = \"root\"\n");
        let Left::Text(back) = without_mirror(&told, "lightning").unwrap() else { panic!("{told}") };
        assert!(parse(&back).unwrap().notify.is_some() && !back.contains("mirror]]"), "{back}");
        let more = with_mirror(Some(&told), &mirror("second")).unwrap();
        let Left::Text(back) = without_mirror(&more, "lightning").unwrap() else { panic!("{more}") };
        assert!(parse(&back).unwrap().notify.is_some() && back.contains("second"), "{back}");
    }

    #[test]
    fn a_member_changes_and_the_rest_stays() {
        let one = with_mirror(None, &mirror("lightning")).unwrap();
        let text = with_mirror(Some(&format!("{one}# a note\n")), &mirror("second")).unwrap();
        let text = text.replacen("id = \"2\"\n", "id = \"2\"\n# the stick\n", 1);
        let new =
            Member { serial: Some("NEW".into()), size: Bytes(7), ..mirror("lightning").member[1].clone() };
        let after = with_member(&text, "second", "2", &new).unwrap();
        let parsed = parse(&after).unwrap();
        assert_eq!(parsed.mirror[0], mirror("lightning"));
        assert_eq!(parsed.mirror[1].member, [mirror("second").member[0].clone(), new.clone()]);
        assert!(after.contains("# a note") && after.contains("# the stick"), "{after}");
        let first = with_member(&text, "lightning", "2", &new).unwrap();
        assert_eq!(parse(&first).unwrap().mirror[0].member[1], new);
        assert!(first.contains("# the stick"), "{first}");
        assert!(with_member(&text, "third", "2", &new).is_err());
        assert!(with_member(&text, "second", "9", &new).is_err());
        let renamed = Member { id: "13".into(), uuid: "13".into(), ..new.clone() };
        let after = with_member(&text, "second", "2", &renamed).unwrap();
        assert_eq!(parse(&after).unwrap().mirror[1].member[1], renamed, "it may have another number");
        assert!(
            with_member(&text, "second", "2", &mirror("second").member[0]).is_err(),
            "but not twice the same"
        );
        // Laid out in a way that is not ours: left alone.
        let inline = "[[mirror]]\nname = \"a\"\nbackend = \"btrfs\"\nlevel = \"raid1\"\nuuid = \"u\"\nmountpoint = \"/srv/a\"\n\
            member = [{ id = \"1\", uuid = \"x\", size = 1 }, { id = \"2\", uuid = \"y\", size = 1 }]\n";
        assert!(parse(inline).is_ok() && with_member(inline, "a", "2", &new).is_err());
    }
}
