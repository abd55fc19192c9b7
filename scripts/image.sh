#!/bin/sh
# Builds the container image from bin/otelcol-collie: scripts/image.sh [VERSION [ARCHIVE.tar]]
#
# The result is localhost/otelcol-collie:VERSION, also as :latest, in buildah's storage; with ARCHIVE (or the variable of
# that name) also a file that `docker load`, `podman load` and `ctr images import` take.
# VERSION comes from the argument, the environment, or is "dev"; OTELCOL is the binary, bin/otelcol-collie by default.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
version=${1:-${VERSION:-dev}}
archive=${2:-${ARCHIVE:-}}
otelcol=${OTELCOL:-$root/bin/otelcol-collie}
certificates=${CA_CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}

fail() {
	echo "image: $*" >&2
	exit 1
}

command -v buildah >/dev/null || fail "buildah is missing: run scripts/install-test-deps.sh, or install the package buildah"
[ -x "$otelcol" ] || fail "$otelcol is missing: run 'make build'"
[ -r "$certificates" ] || fail "$certificates is missing: install the package ca-certificates, or name a bundle in CA_CERTIFICATES"

# A tag has no "+": what SemVer calls build metadata is written behind a "-".
name=localhost/otelcol-collie
tag=$(printf %s "$version" | tr + -)
# The commit's time, not the clock's: one commit makes the same layers each time.
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
chmod 755 "$context"
mkdir -p "$context/configs" "$context/root/var/lib" "$context/state/otelcol-collie"
chmod 750 "$context/state/otelcol-collie"
install -m 755 "$otelcol" "$context/otelcol-collie"
install -m 644 "$certificates" "$context/ca-certificates.crt"
(cd "$root/configs" && find . -name '*.yaml' ! -name kustomization.yaml -exec install -D -m 644 {} "$context/configs/{}" \;)
for helper in healthcheck statedir; do
	(cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$context/$helper" "./distribution/image/$helper")
done

previous=$(buildah images --quiet "$name:$tag" 2>/dev/null || true)
buildah build --quiet --format docker --timestamp "$epoch" \
	--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
	--tag "$name:$tag" --tag "$name:latest" \
	--file "$root/distribution/image/Dockerfile" "$context" >/dev/null
# What had the name before would stay behind without one.
if [ -n "$previous" ] && [ "$previous" != "$(buildah images --quiet "$name:$tag")" ]; then
	buildah rmi "$previous" >/dev/null 2>&1 || true # it has another name
fi

if [ -n "$archive" ]; then
	mkdir -p "$(dirname "$archive")"
	rm -f "$archive"
	buildah push --quiet "$name:$tag" "docker-archive:$archive:$name:$tag"
	echo "$name:$tag ($archive)"
else
	echo "$name:$tag"
fi
