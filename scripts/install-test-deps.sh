#!/bin/sh
# Installs what `make image` and tests/deploy need beyond Go: Debian and Ubuntu packages, only those that are missing.
set -eu

# package=file that shows that it is there
needed="
buildah=/usr/bin/buildah
docker.io=/usr/sbin/dockerd
haproxy=/usr/sbin/haproxy
iproute2=/usr/sbin/ip
iptables=/usr/sbin/iptables
util-linux=/usr/bin/unshare
systemd=/usr/bin/systemd-analyze
ca-certificates=/etc/ssl/certs/ca-certificates.crt
"

missing=
for entry in $needed; do
	file=${entry#*=}
	[ -e "$file" ] || [ -e "${file#/usr}" ] || missing="$missing ${entry%%=*}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "install-test-deps: no apt-get here: install these (names of Debian packages) yourself:$missing" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "install-test-deps: must be root to install:$missing (try: sudo $0)" >&2
	exit 1
fi

# The tests start the daemons that they need; packages must not start theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi

log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
	cat "$log" >&2
	rm -f "$log"
	echo "install-test-deps: apt-get could not install:$missing" >&2
	exit 1
fi
rm -f "$log"
echo "installed:$missing"
