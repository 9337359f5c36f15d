#!/usr/bin/env bash
# Restores an archive, or the newest of a chain, to a raw disk image, and holds everything on the way against its
# SHA-256. It needs no Blockferry: only bash, aws (the AWS CLI), zstd, jq and GNU coreutils 8.31 or newer.
# The format is specified in archive-format.md.
#
#   restore-archive.sh s3://BUCKET/PREFIX/ARCHIVE-ID/manifest.json IMAGE [COPY]
#
# IMAGE must not exist; it is sparse, and needs the room of what the archive holds. With COPY, a folder in which
# COPY/BUCKET/KEY is a copy of s3://BUCKET/KEY, nothing is asked of S3.
set -euo pipefail
export LC_ALL=C

BLOCK=524288

die() {
    echo "restore-archive: $*; there is no image" >&2
    exit 1
}

[ $# -eq 2 ] || [ $# -eq 3 ] || die "usage: restore-archive.sh s3://.../manifest.json IMAGE [COPY]"
uri=$1 image=$2 copy=${3:-}
for program in $([ "$copy" ] || echo aws) zstd jq awk dd od sha256sum split basenc base64; do
    command -v "$program" >/dev/null || die "the program $program is not installed"
done
for file in "$image" "$image.part"; do
    [ ! -e "$file" ] || { echo "restore-archive: $file exists already; name another" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work" "$image.part"' EXIT

fetch() { # URI FILE
    if [ "$copy" ]; then
        cp -- "$copy/${1#s3://}" "$2" || die "$1 cannot be read"
    else
        aws s3 cp --only-show-errors "$1" "$2" </dev/null || die "$1 cannot be read"
    fi
}

sum() { sha256sum | cut -d ' ' -f 1; }

prove() { # FILE URI BYTES SHA256
    [ "$(stat -c %s "$1")" = "$3" ] || die "$2 is damaged: it has $(stat -c %s "$1") bytes instead of $3"
    [ "$(sum <"$1")" = "$4" ] || die "$2 is damaged: its SHA-256 is not $4"
}

MEMBERS='["archive_id","base","block_size","codec","counts","created_at","execution","features","format","holes",
"indexes","job_id","linear_checksum","segment_blocks","sha256","source","tool_version","volume_size_gib"]'

read_manifest() { # URI FILE
    fetch "$1" "$2"
    jq -e '.format == "blockferry-archive-1"' "$2" >/dev/null || die "$1 is no archive of version 1"
    jq -e '.features == []' "$2" >/dev/null || die "$1 needs $(jq -c .features "$2"), which is not known here"
    [ "$(jq -cS 'del(.sha256)' "$2" | sum)" = "$(jq -r .sha256 "$2")" ] || die "$1 is damaged: it was changed"
    jq -e "keys == $MEMBERS and .block_size == $BLOCK and .codec.name == \"zstd\"" "$2" >/dev/null ||
        die "$1 has what is not known here"
    [ "$(jq -r .archive_id "$2")" = "$(basename "$(dirname "$1")")" ] || die "$1 is that of another archive"
}

# The archive is number 0, the one that it is built upon 1, and so on; the last one is a full one.
uris=("$uri")
read_manifest "$uri" "$work/0.json"
bases=$(jq '.base | length' "$work/0.json")
for ((number = 1; number <= bases; number++)); do
    uris+=("$(jq -r ".base[$number - 1].manifest_uri" "$work/0.json")")
    read_manifest "${uris[number]}" "$work/$number.json"
    [ "$(jq -r .sha256 "$work/$number.json")" = "$(jq -r ".base[$number - 1].sha256" "$work/0.json")" ] &&
        [ "$(jq -c .base "$work/$number.json")" = "$(jq -c ".base[$number:]" "$work/0.json")" ] ||
        die "${uris[number]} is not the archive that $uri is built upon"
done
truncate -s "$(jq .volume_size_gib "$work/0.json")G" "$image.part"

restore_segment() { # NUMBER FOLDER FIRST BYTES SHA256: its lines of "$work/plan" are FIRST BLOCK KIND DIGEST
    local name block kind blocks place=0
    name=$2/segments/$(printf %010d "$3").zst
    fetch "$name" "$work/segment"
    prove "$work/segment" "$name" "$4" "$5"
    zstd -dcq "$work/segment" >"$work/blocks" || die "$name is damaged"
    awk -v first="$3" '$1 == first' "$work/plan" >"$work/own"
    awk '$3 == 0 { print $4 }' "$work/own" >"$work/digests"
    split -b "$BLOCK" --filter=sha256sum "$work/blocks" | cut -d ' ' -f 1 | cmp -s - "$work/digests" ||
        die "$name is damaged: its blocks are not those of the index"
    # Neighbours that are alike are written at once.
    awk '{ if (NR > 1 && $2 == first + count && $3 == kind) { count++; next }
           if (NR > 1) print first, kind, count
           first = $2; kind = $3; count = 1 }
         END { print first, kind, count }' "$work/own" >"$work/runs"
    while read -r block kind blocks; do
        if [ "$kind" = 0 ]; then
            dd if="$work/blocks" of="$image.part" bs="$BLOCK" skip="$place" seek="$block" count="$blocks" \
                conv=notrunc status=none </dev/null || die "block $block cannot be written"
            place=$((place + blocks))
        elif [ "$1" != "$bases" ]; then
            # Zeros (1), or removed (2), where an archive below may have had data.
            dd if=/dev/zero of="$image.part" bs="$BLOCK" seek="$block" count="$blocks" \
                conv=notrunc status=none || die "block $block cannot be written"
        fi
    done <"$work/runs"
}

restore_range() { # NUMBER FOLDER FIRST STOP BYTES SHA256
    local name head first bytes sha256
    name=$2/index/$(printf %010d "$3").idx
    fetch "$name" "$work/index"
    prove "$work/index" "$name" "$5" "$6"
    head -n 1 "$work/index" >"$work/line"
    jq -e --arg id "$(basename "$2")" ".format == \"blockferry-index-1\" and .archive_id == \$id
        and .first == $3 and .stop == $4" "$work/line" >/dev/null || die "$name is that of another range or archive"
    head=$(stat -c %s "$work/line")
    tail -c "+$((head + 1))" "$work/index" >"$work/entries"
    od -An -v -w48 -tu4 --endian=big "$work/entries" | awk '{ print $1, $2 / 16777216 }' >"$work/kinds"
    od -An -v -w48 -tx1 "$work/entries" | tr -d ' ' | cut -c 33-96 | paste -d ' ' "$work/kinds" - >"$work/told"
    jq -r '.segments[] | @tsv' "$work/line" >"$work/segments"
    awk 'NR == FNR { first[segments++] = $1; next }
         { while (at + 1 < segments && $1 >= first[at + 1]) at++
           print first[at + 0], $0 }' "$work/segments" "$work/told" >"$work/plan"
    while read -r first bytes sha256; do
        restore_segment "$1" "$2" "$first" "$bytes" "$sha256"
    done <"$work/segments"
    awk -v number="$1" '{ print $1, number, $2, $3 }' "$work/told" >>"$work/all"
}

: >"$work/all"
for ((number = bases; number >= 0; number--)); do
    folder=$(dirname "${uris[number]}")
    jq -r '.indexes[] | [.first, .stop, .bytes, .sha256] | @tsv' "$work/$number.json" >"$work/indexes"
    while read -r first stop bytes sha256; do
        restore_range "$number" "$folder" "$first" "$stop" "$bytes" "$sha256"
    done <"$work/indexes"
done

# LINEAR: the SHA-256 over the SHA-256 of every block that the snapshot holds, in order; of a block that several
# archives tell of, the nearest counts.
linear=$(sort -k 1,1n -k 2,2n "$work/all" |
    awk 'NR == 1 || $1 != last { last = $1; if ($3 != 2) printf "%s", toupper($4) }' |
    basenc --base16 -d | sum | tr a-f A-F | basenc --base16 -d | base64)
[ "$linear" = "$(jq -r .linear_checksum "$work/0.json")" ] ||
    die "the checksum over all blocks is $linear, and the manifest says $(jq -r .linear_checksum "$work/0.json")"
mv -- "$image.part" "$image"
echo "restored $uri to $image: every SHA-256 agrees"
