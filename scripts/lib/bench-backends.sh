# shellcheck shell=bash
# shellcheck disable=SC2154 # quick is set by scripts/bench
# The backends side by side, in the lab, and the properties of a dataset: what docs/backends.md shows between its marks. A part of
# scripts/bench.

# Puts what was measured between its marks.
put_into_docs() {
  local name=$1 text=$2 docs=docs/backends.md part
  part=$(mktemp "$docs.XXXXXX")
  awk -v name="$name" -v text="$text" '
    $0 == "<!-- measured: " name " -->" { print; print ""; while ((getline line < text) > 0) print line; print ""; inside = 1; found = 1 }
    $0 == "<!-- end -->" { inside = 0 }
    !inside && $0 != "<!-- measured: " name " -->" { print }
    END { exit !found }' "$docs" >"$part" || { rm -f "$part"; echo "$docs has no place for $name" >&2; return 1; }
  chmod --reference="$docs" "$part"
  mv "$part" "$docs"
}

bench_backends() {
  local measured name
  needs_qemu
  needs_lab
  build_lab
  measured=$(mktemp -d)
  # shellcheck disable=SC2064 # this one
  trap "rm -rf '$measured'" EXIT
  # The disks are in it.
  export RAIDGUARD_MEASURED=$measured RAIDGUARD_LAB_MEMORY=6144
  ((quick == 0)) || export RAIDGUARD_MEASURE_QUICK=1
  cargo test --locked --quiet --test lab -- --ignored --nocapture --test-threads=1 measured:: 2>&1 | tee "$measured/log" |
    grep --line-buffered -o 'note: measured.*' >&2 || { tail -n 40 "$measured/log" >&2; return 1; }
  for name in backends datasets; do
    echo
    cat "$measured/$name"
    ((quick)) || put_into_docs "$name" "$measured/$name"
  done
}
