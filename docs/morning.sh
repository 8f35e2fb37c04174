#!/bin/sh
# The commands of docs/morning.md, in a new folder: docs/morning.sh FOLDER
set -eu
samples=$(cd "$(dirname "$0")/.." && pwd)/notebooks
mkdir -p "$1" && cd "$1"
cp -r "$samples" .

say() { printf '\n$ %s\n' "$*"; "$@" || printf '(exit code %s)\n' "$?"; }

say research-jobs run --all
# A colleague edits the helper module, and the schedule runs.
sed -i 's/\["DCOILWTICO"\].dropna()/["DCOILWTICO"].dropna().shift(-1)/' notebooks/research_data.py
say research-jobs run --all
say research-jobs diff performance_report
sed -i 's/\.shift(-1)//' notebooks/research_data.py
say research-jobs try --publish
say research-jobs status
say research-jobs diff performance_report -2 0
say research-jobs show performance_report
past=$(research-jobs show performance_report --json |
    python -c 'import json, sys; print(json.load(sys.stdin)["runs"][-1]["run_id"][:8])')
say research-jobs rerun "$past" performance_report
