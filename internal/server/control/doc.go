// Package control owns the fleet while the server runs: it takes what agents report (it is opampserver's Fleet), decides by package
// fleet what they should run, writes to the store, and sends offers. It is api's Control too. DESIGN.md says who does what and in
// which order.
//
// It leaves to others: the wire (opampserver), the rules (fleet), storage (store), who may do what (auth, api).
package control
