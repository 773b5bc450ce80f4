//! What a disk says of its health: `smartctl --json` (smartctl(8), EXIT STATUS and `-n`). A sleeping disk is not woken.

use std::time::Duration;

use serde::Deserialize;

use super::Host;
use crate::{
    exec::{Cmd, CmdError, Failure},
    model::observed::{Smart, SmartHealth},
};

/// A disk that takes longer than this to answer is not well.
const LIMIT: Duration = Duration::from_secs(8);
/// Why a disk's health is not known.
#[derive(Debug, thiserror::Error)]
pub enum SmartError {
    /// smartctl failed.
    #[error(transparent)]
    Command(#[from] CmdError),
    /// It printed something else.
    #[error("what smartctl printed is not of the known form: {0}")]
    Form(String),
    /// It could not ask the disk.
    #[error("smartctl could not ask the disk: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Printed {
    smartctl: Tool,
    #[serde(default)]
    device: Device,
    #[serde(default)]
    smart_support: Support,
    #[serde(default)]
    smart_status: Status,
    #[serde(default)]
    temperature: Temperature,
    serial_number: Option<String>,
    wwn: Option<Wwn>,
    ata_smart_attributes: Option<Attributes>,
    ata_sct_erc: Option<Erc>,
    nvme_smart_health_information_log: Option<Nvme>,
    endurance_used: Option<Endurance>,
}

#[derive(Deserialize)]
struct Tool {
    exit_status: i32,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    string: String,
}

#[derive(Deserialize, Default)]
struct Device {
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct Wwn {
    naa: u64,
    oui: u64,
    id: u64,
}

#[derive(Deserialize, Default)]
struct Support {
    available: Option<bool>,
}

#[derive(Deserialize, Default)]
struct Status {
    passed: Option<bool>,
}

#[derive(Deserialize, Default)]
struct Temperature {
    current: Option<i64>,
}

#[derive(Deserialize)]
struct Attributes {
    table: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    id: u32,
    raw: Raw,
}

#[derive(Deserialize)]
struct Raw {
    value: u64,
}

#[derive(Deserialize)]
struct Erc {
    read: Option<ErcRead>,
}

#[derive(Deserialize)]
struct ErcRead {
    enabled: bool,
    deciseconds: Option<u64>,
}

#[derive(Deserialize)]
struct Nvme {
    critical_warning: Option<u64>,
    percentage_used: Option<u64>,
    media_errors: Option<u64>,
}

#[derive(Deserialize)]
struct Endurance {
    current_percent: Option<u64>,
}

/// Asks a disk, by its kernel name.
///
/// # Errors
/// smartctl failed, or its answer is not understood: nothing is known then.
pub fn ask(host: &Host, disk: &str) -> Result<Smart, SmartError> {
    // The bits of the exit code tell of the disk, and so does the JSON, in words.
    let codes: Vec<i32> = (0..256).collect();
    let cmd = Cmd::probe("smartctl")
        .args(["--json", "-n", "standby", "-i", "-H", "-A", "-l", "scterc"])
        .arg(format!("/dev/{disk}"))
        .accept(&codes)
        .timeout(LIMIT);
    match host.runner().run(&cmd) {
        Ok(output) => parse(&output.text()),
        Err(CmdError { failure: Failure::Absent { .. }, .. }) => Ok(Smart::NoTool),
        Err(e) => Err(e.into()),
    }
}

/// Reads smartctl's JSON.
///
/// # Errors
/// It is not of the known form, or says that the disk could not be asked.
pub fn parse(text: &str) -> Result<Smart, SmartError> {
    let printed: Printed = serde_json::from_str(text).map_err(|e| SmartError::Form(e.to_string()))?;
    let said = printed.smartctl.messages.iter().map(|m| m.string.as_str()).collect::<Vec<_>>().join("; ");
    let status = printed.smartctl.exit_status;
    if ["STANDBY mode, exit(", "SLEEP mode, exit("].iter().any(|asleep| said.contains(asleep)) {
        return Ok(Smart::Asleep);
    }
    // Bit 0: it did not know how to ask. Bit 1: the device could not be opened or identified.
    if status & 0b11 != 0 {
        let unknown = ["Unknown USB bridge", "Unable to detect device type", "Please specify device type"];
        return if unknown.iter().any(|known| said.contains(known)) {
            Ok(Smart::Unsupported(said))
        } else {
            Err(SmartError::Refused(if said.is_empty() { format!("exit status {status}") } else { said }))
        };
    }
    let health = health(&printed);
    if health.says_something() {
        return Ok(Smart::Health(health));
    }
    let or_else = |words: String| if said.is_empty() { words } else { said.clone() };
    if printed.smart_support.available == Some(false) {
        return Ok(Smart::Unsupported(or_else("it has no SMART".to_owned())));
    }
    // Bit 2: the disk failed a SMART command. One that has answered before says nothing any more, which is not that it is well.
    if status & 0b100 != 0 {
        return Err(SmartError::Refused(or_else(format!("a SMART command failed, exit status {status}"))));
    }
    Ok(Smart::Unsupported(or_else("it says nothing".to_owned())))
}

fn health(printed: &Printed) -> SmartHealth {
    // The numbers are those of smartmontools' drivedb.h that all makers share.
    let attribute = |id: u32| {
        let table = printed.ata_smart_attributes.as_ref().map(|a| &a.table);
        // Some makers keep more in the upper bytes.
        table.and_then(|t| t.iter().find(|a| a.id == id)).map(|a| a.raw.value & 0xffff_ffff)
    };
    let nvme = printed.nvme_smart_health_information_log.as_ref();
    let erc = printed.ata_sct_erc.as_ref().and_then(|erc| erc.read.as_ref());
    let serial = printed.serial_number.as_deref().map(|serial| serial.trim().to_owned());
    let wwn = printed.wwn.as_ref().map(|wwn| format!("{:x}{:06x}{:09x}", wwn.naa, wwn.oui, wwn.id));
    SmartHealth {
        passed: printed.smart_status.passed,
        reallocated: attribute(5),
        pending: attribute(197),
        uncorrectable: nvme.and_then(|n| n.media_errors).or_else(|| attribute(198)),
        temperature: printed.temperature.current,
        wear: nvme
            .and_then(|n| n.percentage_used)
            .or_else(|| printed.endurance_used.as_ref().and_then(|e| e.current_percent)),
        critical_warning: nvme.and_then(|n| n.critical_warning),
        erc_read: erc.map(|read| if read.enabled { read.deciseconds.unwrap_or(0) } else { 0 }),
        ata: printed.device.protocol.as_deref().map(|protocol| protocol == "ATA"),
        serial: serial.filter(|serial| !serial.is_empty()).or(wwn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ata_disk_and_an_nvme_are_read() {
        let ata = r#"{"smartctl":{"exit_status":0},"smart_status":{"passed":true},"temperature":{"current":31},
            "ata_smart_attributes":{"table":[{"id":5,"raw":{"value":8}},{"id":197,"raw":{"value":2}},{"id":198,"raw":{"value":1}}]},
            "device":{"protocol":"ATA"},"ata_sct_erc":{"read":{"enabled":true,"deciseconds":70}}}"#;
        let Smart::Health(found) = parse(ata).unwrap() else { panic!() };
        assert_eq!((found.bad_sectors(), found.erc_read, found.temperature), (11, Some(70), Some(31)));
        assert_eq!(found.ata, Some(true));
        let scsi =
            r#"{"smartctl":{"exit_status":0},"device":{"protocol":"SCSI"},"smart_status":{"passed":true}}"#;
        let Smart::Health(found) = parse(scsi).unwrap() else { panic!() };
        assert_eq!((found.ata, found.erc_read), (Some(false), None));
        let nvme = r#"{"smartctl":{"exit_status":8},"smart_status":{"passed":false,"nvme":{"value":4}},
            "nvme_smart_health_information_log":{"critical_warning":4,"percentage_used":97,"media_errors":3}}"#;
        let Smart::Health(found) = parse(nvme).unwrap() else { panic!() };
        assert_eq!((found.passed, found.critical_warning, found.wear), (Some(false), Some(4), Some(97)));
    }

    #[test]
    fn a_disk_is_known_again_by_its_serial_number_or_its_world_wide_name() {
        let serial = |more: &str| {
            let text =
                format!(r#"{{"smartctl":{{"exit_status":0}},"smart_status":{{"passed":true}}{more}}}"#);
            let Smart::Health(found) = parse(&text).unwrap() else { panic!() };
            found.serial
        };
        let wwn = r#","wwn":{"naa":5,"oui":5358,"id":11996827033}"#;
        assert_eq!(serial(&format!(r#","serial_number":" WD-1 "{wwn}"#)).as_deref(), Some("WD-1"));
        assert_eq!(serial(&format!(r#","serial_number":""{wwn}"#)).as_deref(), Some("50014ee2cb110d99"));
        assert_eq!(serial(""), None);
    }

    #[test]
    fn a_sleeper_a_stranger_and_a_dead_one_are_told_apart() {
        let says = |status: i32, text: &str| {
            parse(&format!(
                r#"{{"smartctl":{{"exit_status":{status},"messages":[{{"string":"{text}","severity":"information"}}]}}}}"#
            ))
        };
        assert_eq!(says(2, "Device is in STANDBY mode, exit(2)").unwrap(), Smart::Asleep);
        assert!(matches!(
            says(1, "/dev/sdb: Unknown USB bridge [0x1234:0x5678 (0x100)]").unwrap(),
            Smart::Unsupported(_)
        ));
        assert!(says(2, "Smartctl open device: /dev/sdb failed: No such device").is_err());
        assert!(says(1, "bad option").is_err());
        assert!(matches!(says(0, "").unwrap(), Smart::Unsupported(_)));
        let recorded = include_str!("../../tests/fixtures/smartctl/7.3/loop.json");
        assert!(matches!(parse(recorded).unwrap(), Smart::Unsupported(why) if why.contains("device type")));
    }

    /// smartctl names a disk's protocol before it has asked it anything.
    #[test]
    fn a_disk_that_answers_no_smart_command_is_not_a_healthy_one() {
        let says = |status: i32, more: &str| {
            parse(&format!(
                r#"{{"smartctl":{{"exit_status":{status}}},"device":{{"protocol":"ATA"}},"temperature":{{"current":0}}{more}}}"#
            ))
        };
        let refused = says(4, "").unwrap_err().to_string();
        assert!(refused.contains("SMART command failed"), "{refused}");
        assert!(says(4 | 64, r#","ata_sct_erc":{"read":{"enabled":true,"deciseconds":70}}"#).is_err());
        assert!(matches!(says(0, "").unwrap(), Smart::Unsupported(_)));
        // A virtual disk: that it cannot be asked is no failure, and will not change.
        let lacks = r#","smart_support":{"available":false}"#;
        assert!(matches!(says(4, lacks).unwrap(), Smart::Unsupported(why) if why.contains("no SMART")));
        for known in [
            r#","smart_status":{"passed":false}"#,
            r#","ata_smart_attributes":{"table":[{"id":5,"raw":{"value":0}}]}"#,
            r#","endurance_used":{"current_percent":1}"#,
            r#","nvme_smart_health_information_log":{"critical_warning":0}"#,
        ] {
            assert!(matches!(says(4, known).unwrap(), Smart::Health(_)), "{known}");
        }
    }

    #[test]
    fn garbage_is_no_health() {
        for text in [
            "",
            "{}",
            "null",
            "smartctl 7.3",
            r#"{"smartctl":{"exit_status":"0"}}"#,
            r#"{"smartctl":{"exit_status":0},"ata_smart_attributes":{"table":[{"id":5}]}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_smartctl, text [
        include_bytes!("../../tests/fixtures/smartctl/7.3/loop.json"),
        br#"{"smartctl":{"exit_status":0},"smart_status":{"passed":true},"temperature":{"current":31},
            "ata_smart_attributes":{"table":[{"id":5,"raw":{"value":8}},{"id":197,"raw":{"value":2}}]},
            "ata_sct_erc":{"read":{"enabled":true,"deciseconds":70}}}"#,
        br#"{"smartctl":{"exit_status":8},"smart_status":{"passed":false},
            "nvme_smart_health_information_log":{"critical_warning":4,"percentage_used":97,"media_errors":3}}"#,
    ], |text| {
        if let Ok(Smart::Health(found)) = parse(text) {
            assert!(found.says_something(), "health that says nothing");
        }
    });
}
