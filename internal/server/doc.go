// Package server is the control plane as a program: it reads the configuration, opens the store, wires the parts below it, listens on
// two ports, and ends in order. What the parts do is theirs: control owns the fleet, opampserver speaks with agents, api with people.
package server
