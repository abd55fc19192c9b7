// Package packages is the agent's side of OpAMP packages: it replaces the Collector's own executable by a signed one that the
// server offers. It downloads, verifies, tries the new file out, swaps it in atomically, and brings the old one back when the
// new one does not prove itself. Restarting the process is left to the owner (the extension or a supervisor), and so is the
// judgement whether the new executable works: the owner calls Confirm or Fail.
//
// DESIGN.md beside this file shows the states, what is on disk in each, and what is found after a kill -9.
package packages
