// Package overlay turns what an OpAMP server offers into configuration: remote files, own-telemetry settings and other
// connection settings become maps that are merged over the local configuration, and a local policy says which components
// remote configuration may declare. Its functions are pure: no input is changed, nothing returned is shared with an input,
// nothing is read or written, equal inputs give equal results.
//
// Everything is done on maps, never on text, and before references such as ${env:X} are resolved; the Collector resolves the
// result afterwards. So what comes from an offer has its dollar signs doubled, and what a decision hangs on (the sections that
// the guard restores, the kinds that a policy restricts) must be written out plainly.
//
// It leaves to others: when to apply a result and what to report, writing the certificate files that Telemetry asks for, and
// everything that only the Collector itself can judge (the dry run).
package overlay
