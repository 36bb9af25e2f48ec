#!/usr/bin/env bash
# A dataset from its clips to its exported assets: run.sh [FOLDER [CLIPS]]. README.md says what to see at each step.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-output/dataset}
clips=${2:-50}
if [ -e "$folder" ]; then
    echo "$folder exists: give a folder that does not" >&2
    exit 1
fi
mkdir -p "$folder"
cd "$folder"
cp "$here/small.yaml" .

step() {
    printf '\n== %s\n' "$*"
}

step "1. $clips clips: one of them damaged, and one on a disk that goes away"
python "$here/make_clips.py" . "$clips"

step "2. The manifest: what clips there are"
ss4d dataset init clips --out objects
mv clips/bad/missing .

step "3. What a run would do"
ss4d dataset plan objects --config small.yaml

step "4. The run; whatever fails is recorded, and the others go on"
ss4d dataset run objects --config small.yaml --workers 2

step "5. What failed, and the log of one of the clips"
ss4d dataset failures objects
cat objects/logs/bad_damaged.log

step "6. Mended: a whole file instead of the damaged one, and the disk is back"
cp whole/damaged.mp4 clips/bad/
mv missing clips/bad/
ss4d dataset init clips --out objects
ss4d dataset retry objects bad_missing
ss4d dataset run objects --config small.yaml --workers 2

step "7. A better stage: what it costs, and then the run"
ss4d dataset plan objects --config small.yaml --set slat.sampler.steps=12
ss4d dataset run objects --config small.yaml --set slat.sampler.steps=12 --workers 2

step "8. What another implementation of a stage would cost"
ss4d dataset plan objects --config small.yaml --set decoding.method=inflation

step "9. The catalog, for any program that reads Parquet"
ss4d dataset catalog objects
python "$here/query.py" objects/catalog.parquet objects/manifest.parquet

step "10. The assets as files; here those that cover much of their frames"
ss4d dataset export objects assets
ss4d dataset export objects large --where "foreground > 0.2"
ls assets

step "11. Everything on one page"
ss4d dataset report objects --out report.html
