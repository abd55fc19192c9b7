// Package api is the control plane's HTTP API (package apiv1 has its documents): routes, roles, limits, problem+json, and the
// stream of changes. It reads from the store and steers through Control; what anything means is decided in package fleet.
package api
