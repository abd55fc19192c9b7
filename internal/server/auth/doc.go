// Package auth says who may do what: bearer tokens, each with a role. Secrets are random, shown once, and kept as hashes. All
// tokens are in memory, so that a storm of reconnecting agents costs no query; what changes is written to the store first.
//
// It leaves to others: which route takes which role, and whether an agent's token may speak for an instance UID.
package auth
