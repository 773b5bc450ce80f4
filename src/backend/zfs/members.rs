//! What a pool can do about its members.

use std::path::{Path, PathBuf};

use super::{Zfs, back, exchange, make};
use crate::{
    backend::{BackendError, Exchange, ExchangeEnd, ExchangeProgress, Layout, Members, MirrorSpec, Watcher},
    exec::Cmd,
    host::{Host, files::Doing as _, zfs::Labels},
    model::{Level, mirror::MirrorState},
};

impl Members for Zfs {
    fn layout(&self, host: &Host, device: &Path) -> Result<Layout, BackendError> {
        let labels = Labels::of_member(&host.path(device)).doing("reading the labels of", device)?;
        let label = labels.as_ref().and_then(Labels::newest);
        let none = || BackendError::State(format!("{} has no whole label", device.display()));
        exchange::layout(label.ok_or_else(none)?)
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
        exchange::replace(spec.pool_name(), exchange.id, &exchange::stable(exchange))
    }

    fn is_exchanged(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
        exchange::is_exchanged(host, exchange)
    }

    fn exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        at: &Path,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        exchange::exchange(host, exchange, at, watch)
    }

    fn return_commands(&self, spec: &MirrorSpec, exchange: &Exchange) -> Vec<Cmd> {
        back::commands(spec.pool_name(), exchange.id)
    }

    fn is_returned(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
        back::is_returned(host, exchange)
    }

    fn take_back(
        &self,
        host: &Host,
        exchange: &Exchange,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        back::take_back(host, exchange, watch)
    }

    fn numbers_anew(&self) -> bool {
        true
    }

    fn waking(&self, spec: &MirrorSpec) -> Option<Cmd> {
        Some(back::clear_pool(spec.pool_name()))
    }

    fn wake(&self, host: &Host, spec: &MirrorSpec) -> Result<(), BackendError> {
        back::wake(host, spec)
    }

    /// ZFS keeps room for itself in which it can always begin (`spa_slop_shift`).
    fn exchange_is_tight(&self, _: &MirrorState, _: Level) -> Option<String> {
        None
    }

    fn give_up_exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        _: Option<&Path>,
    ) -> Result<(), BackendError> {
        exchange::give_up(host, exchange)
    }

    fn retire_commands(&self, host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd> {
        exchange::retire(host, exchange, old)
    }
}
