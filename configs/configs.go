// Package configs is the shipped configurations, for programs that carry them along. The files are made for
// people first: nothing in them is generated.
package configs

import "embed"

// Files holds the configurations by their path below this folder, e.g. "tiered/sampler.yaml".
//
//go:embed *.yaml tiered/*.yaml examples/*.yaml
var Files embed.FS
