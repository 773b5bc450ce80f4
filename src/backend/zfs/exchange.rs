//! Members that go and come.

use std::path::{Path, PathBuf};

use super::{Zfs, make};
use crate::{
    backend::{
        BackendError, Exchange, ExchangeEnd, ExchangeProgress, Layout, LevelEnd, Members, MirrorSpec, Watcher,
    },
    exec::Cmd,
    host::Host,
    model::{Level, mirror::MirrorState},
};

fn unbuilt() -> BackendError {
    BackendError::Unsupported {
        what: "an exchange of members of ZFS".into(),
        why: "it is not built yet".into(),
    }
}

impl Members for Zfs {
    fn layout(&self, _: &Host, _: &Path) -> Result<Layout, BackendError> {
        Err(unbuilt())
    }
    fn assembling(&self, spec: &MirrorSpec, _: &[PathBuf]) -> Vec<Cmd> {
        make::assembling(spec)
    }
    fn assemble_commands(
        &self,
        host: &Host,
        spec: &MirrorSpec,
        _: &[PathBuf],
    ) -> Result<Vec<Cmd>, BackendError> {
        make::assemble(host, spec)
    }
    fn is_assembled_when_made(&self) -> bool {
        true
    }
    fn degrades_a_mount(&self) -> bool {
        false
    }
    fn exchange_command(&self, spec: &MirrorSpec, exchange: &Exchange, _: &Path) -> Cmd {
        Cmd::change("zpool").args(["replace", "--", &spec.name, &exchange.id.to_string()]).arg(&exchange.new)
    }
    fn is_exchanged(&self, _: &Host, _: &Exchange) -> Result<bool, BackendError> {
        Err(unbuilt())
    }
    fn exchange(
        &self,
        _: &Host,
        _: &Exchange,
        _: &Path,
        _: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        Err(unbuilt())
    }
    fn return_command(&self, spec: &MirrorSpec, exchange: &Exchange) -> Option<Cmd> {
        Some(Cmd::change("zpool").args(["online", "--", &spec.name, &exchange.id.to_string()]))
    }
    fn take_back(
        &self,
        _: &Host,
        _: &Exchange,
        _: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        Err(unbuilt())
    }
    fn exchange_is_tight(&self, _: &MirrorState, _: Level) -> Option<String> {
        None
    }
    fn give_up_exchange(&self, _: &Host, _: &Exchange, _: Option<&Path>) -> Result<(), BackendError> {
        Err(unbuilt())
    }
    fn retire_commands(&self, _: &Host, _: &Exchange, _: &Path) -> Vec<Cmd> {
        Vec::new()
    }
    fn grow_commands(&self, _: &Exchange, _: &Path) -> Vec<Cmd> {
        Vec::new()
    }
    fn is_grown(&self, _: &Host, _: &Exchange) -> Result<bool, BackendError> {
        Ok(true)
    }
    fn restore_level_command(&self, _: Level, _: &Path) -> Option<Cmd> {
        None
    }
    fn restore_level(
        &self,
        _: &Host,
        _: &MirrorState,
        _: Level,
        _: &Path,
        _: &mut Watcher<'_, ()>,
    ) -> Result<LevelEnd, BackendError> {
        Ok(LevelEnd::Done)
    }
}
