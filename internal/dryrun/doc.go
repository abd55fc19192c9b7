// Package dryrun checks a configuration with the factories of this very binary, beside the service that runs and without
// touching it. It finds what a start would find short of starting: references, keys, types, pipelines, what components
// refuse when they are created, and telemetry. It does not open ports and does not connect to anything.
package dryrun
