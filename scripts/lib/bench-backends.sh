# shellcheck shell=bash
# shellcheck disable=SC2154 # quick is set by scripts/bench
# The backends side by side, in the lab, and the properties of a dataset. A part of scripts/bench.

bench_backends() {
  local measured name
  needs_qemu
  needs_lab
  build_lab
  measured=$(mktemp -d)
  # shellcheck disable=SC2064 # this one
  trap "rm -rf '$measured'" EXIT
  # The disks are in it.
  export RAIDGUARD_MEASURED=$measured RAIDGUARD_LAB_MEMORY=5120
  ((quick == 0)) || export RAIDGUARD_MEASURE_QUICK=1
  cargo test --locked --quiet --test lab -- --ignored --nocapture --test-threads=1 measured:: >"$measured/log" 2>&1 ||
    { tail -n 40 "$measured/log" >&2; return 1; }
  for name in backends datasets; do
    echo
    cat "$measured/$name"
  done
}
