package api

import (
	"net"
	"net/netip"
	"strings"
)

// IsLoopback says whether a Host header, or the host of an origin, names this machine itself. A page whose name was made to resolve to 127.0.0.1 sends
// its own name.
func IsLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && addr.Unmap().IsLoopback()
}
