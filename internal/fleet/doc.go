// Package fleet is the control plane's domain: agents, the configurations that apply to them, rollouts of new versions, and
// what happened when. Everything here is a value or a pure function: the clock, the agents' reports and the identifiers come
// from outside, so each decision can be tested by itself and taken again after a crash.
//
// It leaves to others: the wire (OpAMP), storage, transport to people, and goroutines. It imports the standard library only.
// DESIGN.md explains the rollout's state machine, which version an agent gets, and how files are named.
package fleet
