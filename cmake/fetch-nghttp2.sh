#!/bin/sh
# Brings Debian's source package of nghttp2, patches applied, into the folder given: compiled in with -O3 it saves a fifth
# of all instructions (docs/performance.md). Uses apt with a source list of its own, so the machine's stays as it is.
set -eu
target=$(realpath -m "$1")
[ -e "$target/lib/nghttp2_session.c" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/parts" "$work/lists/partial" "$work/source"
for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/debian.list; do
    [ -e "$list" ] || continue
    sed 's/^Types: deb$/Types: deb-src/; s/^deb /deb-src /' "$list" > "$work/parts/$(basename "$list" | sed 's/^sources.list$/main.list/')"
done
options="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$work/parts -o Dir::State::Lists=$work/lists -o APT::Sandbox::User=root"
cd "$work/source"
# shellcheck disable=SC2086
apt-get $options -qq update
# shellcheck disable=SC2086
apt-get $options -qq source nghttp2 > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
mkdir -p "$(dirname "$target")"
rm -rf "$target"
mv "$work/source"/nghttp2-*/ "$target"
