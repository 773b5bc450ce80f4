# shellcheck shell=bash
# What the scripts need from Debian 12 or 13, installed where it is missing. Sourced.

# needs COMMAND:PACKAGE...
needs() {
  local pair missing=()
  for pair; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

install_packages() {
  local log
  ((EUID == 0)) || {
    echo "$* must be installed first; run this as root, or install it" >&2
    return 1
  }
  echo "== installing $*"
  log=$(mktemp)
  if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"; } \
    >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# needs_rust [lints]: a Rust that builds this, with its formatter and lints if asked. The one of rustup goes first.
needs_rust() {
  local packages version
  [[ -d ${CARGO_HOME:-${HOME:-/root}/.cargo}/bin ]] && PATH=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH
  needs cc:gcc
  [[ -e /usr/include/stdlib.h ]] || install_packages libc6-dev
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || install_packages ca-certificates
  # Debian 12 has a newer Rust beside its own under these names.
  if grep -qs '^VERSION_ID="12"' /etc/os-release; then
    packages=(cargo-web rustc-web rustfmt-web rust-web-clippy)
  else
    packages=(cargo rustc rustfmt rust-clippy)
  fi
  needs "cargo:${packages[0]}" "rustc:${packages[1]}"
  [[ ${1:-} != lints ]] || needs "cargo-fmt:${packages[2]}" "cargo-clippy:${packages[3]}"
  version=$(cargo --version | cut -d' ' -f2)
  if [[ $(printf '%s\n' 1.85.0 "$version" | sort -V | head -n1) != 1.85.0 ]]; then
    echo "this cargo is $version; 1.85 or newer is needed" >&2
    return 1
  fi
}

# has_oldest_rust VERSION: the oldest Rust that must build this, where rustup is what Rust comes from; elsewhere it is that already, or
# scripts/msrv has it.
has_oldest_rust() {
  command -v rustup >/dev/null || return
  rustup run "$1" cargo --version >/dev/null 2>&1 && return
  rustup toolchain install "$1" --profile minimal --no-self-update >/dev/null 2>&1
}

# What an overlay is made of where there is no device-mapper. Debian 12 has it in another package.
needs_qemu_daemon() {
  local package=qemu-utils
  if grep -qs '^VERSION_ID="12"' /etc/os-release; then package=qemu-system-common; fi
  needs "qemu-storage-daemon:$package"
}

# The one that checks licences, bans and sources, built once into a cache outside the checkout.
needs_cargo_deny() {
  local version=0.18.3 tools=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/raidguard
  PATH=$tools/bin:$PATH
  [[ $(cargo deny --version 2>/dev/null) == "cargo-deny $version" ]] && return
  echo "== building cargo-deny $version (once, some minutes)"
  CARGO_TARGET_DIR=$tools/build cargo install --locked --quiet --root "$tools" --version "$version" cargo-deny
  rm -rf "$tools/build"
}

# The one that checks metrics and alert rules. It is in the package of Prometheus' daemon, which is not to be installed for that: the
# package is unpacked into a cache outside the checkout.
needs_promtool() {
  local tools=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/raidguard/promtool log
  PATH=$tools/usr/bin:$PATH
  promtool --version >/dev/null 2>&1 && return
  echo '== fetching promtool (once)'
  rm -rf "$tools"
  mkdir -p "$tools"
  log=$(mktemp)
  if ! fetch_promtool "$tools" >"$log" 2>&1 </dev/null || ! promtool --version >>"$log" 2>&1; then
    cat "$log" >&2
    rm -rf "$log" "$tools"
    return 1
  fi
  rm -f "$log"
}

# Where apt knows no package yet, root has it look; apt's own user may not write into the cache.
fetch_promtool() (
  cd "$1" || return
  download() { apt-get -o APT::Sandbox::User=root download prometheus; }
  download || { ((EUID == 0)) && apt-get update -q && download; } || return
  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb
)
