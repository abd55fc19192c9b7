// Package remoteconfig decides which configuration a Collector runs: the base file alone, or with what an OpAMP server has
// sent. It checks a configuration before anything is touched, applies it through a reload in the same process, watches it,
// and goes back when it turns out bad. DESIGN.md has the states.
//
// It leaves the protocol to internal/agent, merging to internal/overlay, and checking to internal/dryrun.
package remoteconfig
